#if canImport(CoreML)
import CoreML
import Foundation
import MViTKit

/// Turns a model's outputs into an answer, by what the package's metadata says they are.
struct OutputReader: Sendable {
  private enum Kind: Sendable {
    /// Probability by label, Core ML's classifier interface.
    case dictionary
    /// One score a class.
    case scores(areLogits: Bool)
    /// One class a cell.
    case classMap
    /// One score a class and cell; the best is taken at the map's own size, as in Python.
    case scoreMap
  }

  /// Name of the output that is read.
  let name: String
  private let kind: Kind
  private let labels: [String]

  /// Finds the output to read.
  ///
  /// - Throws: ``ModelError`` for an output that is missing or neither classes nor class maps.
  init(
    description: MLModelDescription, metadata: PackageMetadata, labels: [String]
  ) throws {
    self.labels = labels
    let output = metadata.output
    if output == .features { throw ModelError.unsupportedOutput("features") }
    if metadata.task == .semanticSegmentation {
      name = output.rawValue
      kind = output == .classes ? .classMap : .scoreMap
    } else if let probabilities = description.predictedProbabilitiesName {
      name = probabilities
      kind = .dictionary
    } else {
      name = output.rawValue
      kind = .scores(areLogits: output == .logits)
    }
    guard description.outputDescriptionsByName[name] != nil else {
      throw ModelError.missingOutput(name)
    }
    if metadata.task == .imageClassification, labels.isEmpty { throw ModelError.noLabels }
  }

  /// Reads what `MLModel.prediction` gave.
  func read(_ outputs: any MLFeatureProvider, top: Int) throws -> Answer {
    guard let value = outputs.featureValue(for: name) else { throw ModelError.missingOutput(name) }
    if case .dictionary = kind {
      return read(
        probabilities: value.dictionaryValue.reduce(into: [:]) { found, entry in
          if let label = entry.key as? String { found[label] = entry.value.doubleValue }
        }, top: top)
    }
    return try read(
      integers: { value.shapedArrayValue(of: Int32.self) },
      floats: { value.shapedArrayValue(of: Float.self) }, top: top)
  }

  /// Reads a classifier's probabilities by label.
  func read(probabilities: [String: Double], top: Int) -> Answer {
    .classification(topK(probabilities, labels: labels, k: top))
  }

  /// Reads an array; only the closure for the output's element type is called.
  func read(
    integers: () -> MLShapedArray<Int32>?, floats: () -> MLShapedArray<Float>?, top: Int
  ) throws -> Answer {
    switch kind {
    case .classMap:
      guard let array = integers() else { throw ModelError.missingOutput(name) }
      return .segmentation(
        try array.withUnsafeShapedBufferPointer { values, shape, strides in
          try ClassMap(classes: values, shape: shape, strides: strides)
        })
    case .scoreMap:
      guard let array = floats() else { throw ModelError.missingOutput(name) }
      return .segmentation(
        try array.withUnsafeShapedBufferPointer { values, shape, strides in
          try ClassMap(scores: values, shape: shape, strides: strides)
        })
    case .scores(let areLogits):
      guard let array = floats() else { throw ModelError.missingOutput(name) }
      let scores = array.withUnsafeShapedBufferPointer { values, shape, strides in
        // (1, classes): the stride of the last axis, which padding may make larger than 1.
        (0..<(shape.last ?? 0)).map { values[$0 * (strides.last ?? 1)] }
      }
      return .classification(
        topK(areLogits ? softmax(scores) : scores, labels: labels, k: top))
    case .dictionary:
      throw ModelError.missingOutput(name)
    }
  }
}
#endif
