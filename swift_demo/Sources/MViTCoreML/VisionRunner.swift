#if canImport(CoreML)
import CoreML
import CoreVideo
import Foundation
import ImageIO
import MViTKit
import Vision

/// The fast path: Vision resizes a region of the picture to the input and predicts.
///
/// The region comes from the placement, so that scaling it to the whole input shows what resizing
/// and cropping shows. Vision has its own filter: pixels differ a little from the exact path's.
enum VisionRunner {
  /// Vision's structures, from iOS 18 on.
  case modern(any Sendable)
  /// Vision's classes, before.
  case classic(VNCoreMLModel)

  /// Prepares Vision for a model.
  init(model: MLModel) throws {
    if #available(iOS 18.0, macOS 15.0, tvOS 18.0, visionOS 2.0, *) {
      self = .modern(try CoreMLModelContainer(model: model))
    } else {
      self = .classic(try VNCoreMLModel(for: model))
    }
  }

  /// Answers about a region of a picture.
  func run(
    _ photo: Photo, region: VisionRegion, reader: OutputReader, top: Int,
    isolation: isolated (any Actor)? = #isolation
  ) async throws -> ImageAnswer {
    switch self {
    case .modern(let container):
      if #available(iOS 18.0, macOS 15.0, tvOS 18.0, visionOS 2.0, *),
        let container = container as? CoreMLModelContainer
      {
        return try await Self.run(photo, container, region: region, reader: reader, top: top)
      }
      throw ModelError.missingOutput(reader.name)
    case .classic(let model):
      return try Self.run(photo, model, region: region, reader: reader, top: top)
    }
  }

  @available(iOS 18.0, macOS 15.0, tvOS 18.0, visionOS 2.0, *)
  private static func run(
    _ photo: Photo, _ container: CoreMLModelContainer, region: VisionRegion, reader: OutputReader,
    top: Int
  ) async throws -> ImageAnswer {
    var request = CoreMLRequest(model: container)
    request.cropAndScaleAction = region.scaling == .scaleFill ? .scaleToFill : .scaleToFit
    request.regionOfInterest = NormalizedRect(
      x: region.x, y: region.y, width: region.width, height: region.height)
    let orientation = photo.orientation.imageIO
    let observations =
      switch photo.source {
      case .image(let image), .pixels(_, let image):
        try await request.perform(on: image, orientation: orientation)
      case .buffer(let buffer): try await request.perform(on: buffer, orientation: orientation)
      }
    let classes = observations.compactMap { $0 as? ClassificationObservation }
    if !classes.isEmpty {
      let found = classes.map { ($0.identifier, Double($0.confidence)) }
      return reader.read(
        probabilities: Dictionary(found, uniquingKeysWith: { one, _ in one }), top: top)
    }
    let features = observations.compactMap { $0 as? CoreMLFeatureValueObservation }
    guard let feature = features.first(where: { $0.featureName == reader.name }) else {
      throw ModelError.missingOutput(reader.name)
    }
    return try reader.read(
      integers: { feature.featureValue.shapedArrayValue(of: Int32.self) },
      floats: { feature.featureValue.shapedArrayValue(of: Float.self) }, top: top)
  }

  private static func run(
    _ photo: Photo, _ model: VNCoreMLModel, region: VisionRegion, reader: OutputReader, top: Int
  ) throws -> ImageAnswer {
    let request = VNCoreMLRequest(model: model)
    request.imageCropAndScaleOption = region.scaling == .scaleFill ? .scaleFill : .scaleFit
    request.regionOfInterest = CGRect(
      x: region.x, y: region.y, width: region.width, height: region.height)
    let orientation = photo.orientation.imageIO
    let handler =
      switch photo.source {
      case .image(let image), .pixels(_, let image):
        VNImageRequestHandler(cgImage: image, orientation: orientation, options: [:])
      case .buffer(let buffer):
        VNImageRequestHandler(cvPixelBuffer: buffer, orientation: orientation, options: [:])
      }
    try handler.perform([request])
    let observations = request.results ?? []
    let classes = observations.compactMap { $0 as? VNClassificationObservation }
    if !classes.isEmpty {
      let found = classes.map { ($0.identifier, Double($0.confidence)) }
      return reader.read(
        probabilities: Dictionary(found, uniquingKeysWith: { one, _ in one }), top: top)
    }
    let features = observations.compactMap { $0 as? VNCoreMLFeatureValueObservation }
    guard let feature = features.first(where: { $0.featureName == reader.name }) else {
      throw ModelError.missingOutput(reader.name)
    }
    return try reader.read(
      integers: { feature.featureValue.shapedArrayValue(of: Int32.self) },
      floats: { feature.featureValue.shapedArrayValue(of: Float.self) }, top: top)
  }
}
#endif
