#if canImport(CoreML)
import CoreML
import CoreVideo
import Foundation
import MViTKit
import os

/// A loaded model that answers about pictures, one at a time.
///
/// The actor owns the `MLModel`, which is not `Sendable` in every SDK, and runs on a queue of its own:
/// a prediction blocks its thread, and must not be one of the few that all of Swift's tasks share. Get
/// one from a ``ModelStore``.
public actor ImageModel: ImagePredictor {
  /// What there is to know about the model.
  public nonisolated let information: ModelInformation

  private let queue = DispatchSerialQueue(label: "mvit-coreml.model")
  private let signposter = OSSignposter(subsystem: "mvit-coreml", category: "prediction")
  private let inputName: String
  private let pool: PixelBufferPool
  private let frames: FramePreprocessor
  private let model: MLModel
  private let reader: OutputReader
  private var vision: VisionRunner?

  /// The queue of the model.
  public nonisolated var unownedExecutor: UnownedSerialExecutor {
    queue.asUnownedSerialExecutor()
  }

  private init(
    model: sending MLModel, information: ModelInformation, inputName: String, reader: OutputReader
  ) throws {
    self.model = model
    self.information = information
    self.inputName = inputName
    self.reader = reader
    pool = try PixelBufferPool(size: information.preprocessing.inputSize)
    frames = FramePreprocessor(information.preprocessing)
  }

  /// Loads a compiled model.
  ///
  /// - Parameters:
  ///   - url: an `.mlmodelc` folder.
  ///   - name: what to call it.
  ///   - units: what Core ML may use.
  ///   - choice: function of a package with several (iOS 18); the package's default if `nil`.
  ///   - known: what the model's files say; `nil` where only the loaded model tells.
  /// - Throws: ``ModelError``, or `MetadataError` for a package of another tool.
  static func open(
    compiled url: URL, name: String, units: ComputeUnits, function choice: FunctionChoice?,
    metadata known: PackageMetadata?
  ) async throws -> ImageModel {
    let wanted = try functionName(choice, of: known)
    var model = try await loadModel(url, name: name, units: units, functionName: wanted)
    let created = model.modelDescription.metadata[.creatorDefinedKey] as? [String: String] ?? [:]
    let metadata = try PackageMetadata(userDefined: created)
    if known == nil, let chosen = try functionName(choice, of: metadata) {
      model = try await loadModel(url, name: name, units: units, functionName: chosen)
    }
    let description = model.modelDescription
    let input = description.inputDescriptionsByName.first { $0.value.imageConstraint != nil }
    guard let input, let constraint = input.value.imageConstraint else {
      throw ModelError.noImageInput
    }
    let found = PixelSize(width: constraint.pixelsWide, height: constraint.pixelsHigh)
    let fitting = metadata.functions.first { $0.preprocessing.inputSize == found }
    guard let function = fitting else {
      throw ModelError.inputMismatch(
        declared: metadata.functions[0].preprocessing.inputSize, found: found)
    }
    let labels = description.classLabels as? [String] ?? metadata.labels ?? []
    let reader = try OutputReader(description: description, metadata: metadata, labels: labels)
    return try ImageModel(
      model: model,
      information: ModelInformation(
        name: name, compiledURL: url, units: units, metadata: metadata, function: function,
        labels: labels, programSHA256: created["mvit_coreml.program_sha256"]),
      inputName: input.key, reader: reader)
  }

  /// The function to ask Core ML for: none of a package with but one.
  private static func functionName(
    _ choice: FunctionChoice?, of metadata: PackageMetadata?
  ) throws -> String? {
    guard let choice, let metadata, metadata.isMultifunction else { return nil }
    return try metadata.function(choice).name
  }

  private static func loadModel(
    _ url: URL, name: String, units: ComputeUnits, functionName: String?
  ) async throws -> sending MLModel {
    let configuration = try units.configuration(functionName: functionName)
    do {
      return try await MLModel.load(contentsOf: url, configuration: configuration)
    } catch {
      try Task.checkCancellation()
      throw ModelError.unloadable(name: name, reason: error.localizedDescription)
    }
  }

  /// Predicts on black pictures; the first predictions after a load are slower than the rest.
  public func warmUp(runs: Int = 3) throws {
    let buffer = try pool.makeBuffer()
    try withMutablePixels(of: buffer) { view in
      _ = memset(view.base, 0, view.bytesPerRow * view.size.height)
    }
    for _ in 0..<runs {
      try Task.checkCancellation()
      _ = try predict(buffer)
    }
  }

  /// Answers about a picture.
  ///
  /// - Parameters:
  ///   - photo: the picture.
  ///   - top: how many classes to list, of a classifier.
  ///   - path: how to resize; fast falls back to exact where Vision cannot fit the picture alike,
  ///     and for class maps of 8 bits or with a confidence.
  /// - Throws: `CancellationError`, ``ModelError``, or Core ML's own error.
  public func answer(
    _ photo: Photo, top: Int = 5, path: InputPath = .exact
  ) async throws -> ImagePrediction {
    try Task.checkCancellation()
    let placement = try information.preprocessing.placement(of: photo.uprightSize)
    if path == .fast, reader.readsFromVision, let region = placement.visionRegion {
      return try await answerWithVision(photo, region: region, placement: placement, top: top)
    }
    return try answerExactly(photo, top: top)
  }

  /// Classifies a picture.
  ///
  /// - Throws: ``ModelError/wrongTask(asked:)`` for a segmenter, and as ``answer(_:top:path:)``.
  public func classify(
    _ photo: Photo, top: Int = 5, path: InputPath = .exact
  ) async throws -> [ClassScore] {
    guard case .classification(let scores) = try await answer(photo, top: top, path: path).answer
    else { throw ModelError.wrongTask(asked: "classification") }
    return scores
  }

  /// Returns the labels that a picture is likely to have, of a model that tells several.
  ///
  /// - Parameters:
  ///   - photo: the picture.
  ///   - threshold: probability above which a label counts as there.
  ///   - path: how to resize.
  /// - Throws: ``ModelError/wrongTask(asked:)`` for another model, and as ``answer(_:top:path:)``.
  public func labels(
    of photo: Photo, above threshold: Double = 0.5, path: InputPath = .exact
  ) async throws -> [ClassScore] {
    guard information.metadata.activation == .sigmoid else {
      throw ModelError.wrongTask(asked: "set of labels")
    }
    return try await classify(photo, top: .max, path: path).filter { $0.score > threshold }
  }

  /// Returns the values that a regression gives a picture, in the model's order.
  ///
  /// - Throws: ``ModelError/wrongTask(asked:)`` for another model, and as ``answer(_:top:path:)``.
  public func values(of photo: Photo, path: InputPath = .exact) async throws -> [ClassScore] {
    guard case .values(let values) = try await answer(photo, path: path).answer
    else { throw ModelError.wrongTask(asked: "value") }
    return values
  }

  /// Returns the features of a picture as a vector of length 1; `similarity` compares two.
  ///
  /// - Throws: ``ModelError/wrongTask(asked:)`` for another model, and as ``answer(_:top:path:)``.
  public func embedding(of photo: Photo, path: InputPath = .exact) async throws -> [Float] {
    guard case .embedding(let vector) = try await answer(photo, path: path).answer
    else { throw ModelError.wrongTask(asked: "vector") }
    return vector
  }

  /// Labels every cell of a picture; `ClassMap.unfitted` lays the map back on the picture.
  ///
  /// - Throws: ``ModelError/wrongTask(asked:)`` for a classifier, and as ``answer(_:top:path:)``.
  public func segment(
    _ photo: Photo, path: InputPath = .exact
  ) async throws -> (map: ClassMap, placement: Placement) {
    let prediction = try await answer(photo, path: path)
    guard case .segmentation(let map) = prediction.answer else {
      throw ModelError.wrongTask(asked: "class map")
    }
    return (map, prediction.placement)
  }

  private func answerExactly(_ photo: Photo, top: Int) throws -> ImagePrediction {
    let clock = ContinuousClock()
    let buffer = try pool.makeBuffer()
    let started = clock.now
    let photo = try signposter.withIntervalSignpost("Decode") { try photo.decoded() }
    let decoded = clock.now
    let placement = try signposter.withIntervalSignpost("Resize") {
      try withMutablePixels(of: buffer) { try photo.write(frames, into: $0) }
    }
    try Task.checkCancellation()
    let prepared = clock.now
    let outputs = try signposter.withIntervalSignpost("Predict") { try predict(buffer) }
    let finished = clock.now
    return ImagePrediction(
      answer: try reader.read(outputs, top: top), placement: placement,
      timing: PredictionTiming(
        decoding: decoded - started, resizing: prepared - decoded,
        prediction: finished - prepared, path: .exact))
  }

  // Synchronous on purpose: the asynchronous prediction would take the model out of the actor.
  private func predict(_ buffer: CVPixelBuffer) throws -> any MLFeatureProvider {
    let value = MLFeatureValue(pixelBuffer: buffer)
    let input = try MLDictionaryFeatureProvider(dictionary: [inputName: value])
    return try model.prediction(from: input, options: MLPredictionOptions())
  }

  private func answerWithVision(
    _ photo: Photo, region: VisionRegion, placement: Placement, top: Int
  ) async throws -> ImagePrediction {
    let runner = try vision ?? VisionRunner(model: model)
    vision = runner
    let clock = ContinuousClock()
    let started = clock.now
    let answer = try await runner.run(photo, region: region, reader: reader, top: top)
    let finished = clock.now
    try Task.checkCancellation()
    return ImagePrediction(
      answer: answer, placement: placement,
      timing: PredictionTiming(resizing: 0, prediction: finished - started, path: .fast))
  }
}

private func - (end: ContinuousClock.Instant, start: ContinuousClock.Instant) -> Double {
  start.duration(to: end) / .seconds(1)
}
#endif
