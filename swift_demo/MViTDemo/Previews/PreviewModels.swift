#if DEBUG
import CoreGraphics
import Foundation
import MViTCoreML
import MViTKit

/// A model for previews and tests that answers from memory, without Core ML.
struct PreviewPredictor: ImagePredictor {
  let information: ModelInformation

  /// A classifier of three classes.
  init() throws {
    let metadata = try PackageMetadata(userDefined: [
      "mvit_coreml.task": "image-classification", "mvit_coreml.output": "probabilities",
      "mvit_coreml.preprocessing": """
      {"main": {"version": 1, "width": 64, "height": 64, "fit": "stretch",
       "resample": "bilinear", "resize": null, "crop": null, "color_order": "RGB",
       "baked": {"scale": 0.00392, "bias": [0, 0, 0]}}}
      """,
    ])
    information = ModelInformation(
      name: "Preview", compiledURL: URL(fileURLWithPath: "/Preview.mlmodelc"), units: .cpuOnly,
      metadata: metadata, function: metadata.functions[0], labels: ["one", "two", "three"])
  }

  func answer(_ frame: Photo, top: Int, path: InputPath) async throws -> ImagePrediction {
    let scores = zip(information.labels, [0.7, 0.2, 0.1]).enumerated().map {
      ClassScore(index: $0.offset, label: $0.element.0, score: $0.element.1)
    }
    return ImagePrediction(
      answer: .classification(Array(scores.prefix(top))),
      placement: try information.preprocessing.placement(of: frame.uprightSize),
      timing: PredictionTiming(resizing: 0.002, prediction: 0.003, path: path))
  }
}

/// Loads ``PreviewPredictor`` whatever is asked for.
struct PreviewLoading: ModelLoading {
  func needsCompiling(_ model: URL) async -> Bool { false }
  func compiled(_ model: URL) async throws -> URL { model }
  func predictor(
    _ model: URL, units: ComputeUnits, function: FunctionChoice?
  ) async throws -> any ImagePredictor<Photo> { try PreviewPredictor() }
}
#endif
