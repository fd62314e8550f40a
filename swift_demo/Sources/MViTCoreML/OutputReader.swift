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
    /// One value of a regression each.
    case values
    /// One vector.
    case embedding
    /// One class a cell.
    case classMap
    /// One score a class and cell; the best is taken at the map's own size, as in Python.
    case scoreMap
  }

  /// Name of the output that is read.
  let name: String
  private let kind: Kind
  private let labels: [String]
  private let activation: ScoreActivation
  private let mapType: ClassMapType
  private let hasConfidence: Bool

  /// Whether Vision hands the output over in the form that is read here.
  var readsFromVision: Bool { mapType == .int32 && !hasConfidence }

  /// Finds the output to read.
  ///
  /// - Throws: ``ModelError`` for an output that is missing or neither classes nor class maps.
  init(
    description: MLModelDescription, metadata: PackageMetadata, labels: [String]
  ) throws {
    self.labels = labels
    activation = metadata.activation
    mapType = metadata.mapType
    hasConfidence = description.outputDescriptionsByName[confidenceName] != nil
    let output = metadata.output
    if output == .features { throw ModelError.unsupportedOutput("features") }
    if output == .embedding {
      name = output.rawValue
      kind = .embedding
    } else if metadata.task == .semanticSegmentation {
      name = output.rawValue
      kind = output == .classes ? .classMap : .scoreMap
    } else if let probabilities = description.predictedProbabilitiesName {
      name = probabilities
      kind = .dictionary
    } else {
      name = output.rawValue
      kind = output == .values ? .values : .scores(areLogits: output == .logits)
    }
    guard description.outputDescriptionsByName[name] != nil else {
      throw ModelError.missingOutput(name)
    }
    if metadata.task == .imageClassification, output != .embedding, labels.isEmpty {
      throw ModelError.noLabels
    }
  }

  /// Reads what `MLModel.prediction` gave.
  func read(_ outputs: any MLFeatureProvider, top: Int) throws -> ImageAnswer {
    guard let value = outputs.featureValue(for: name) else { throw ModelError.missingOutput(name) }
    if case .dictionary = kind {
      return read(
        probabilities: value.dictionaryValue.reduce(into: [:]) { found, entry in
          if let label = entry.key as? String { found[label] = entry.value.doubleValue }
        }, top: top)
    }
    guard case .classMap = kind, !readsFromVision else {
      return try read(
        integers: { value.shapedArrayValue(of: Int32.self) },
        floats: { value.shapedArrayValue(of: Float.self) }, top: top)
    }
    var map = try readMap(value)
    let confidence = outputs.featureValue(for: confidenceName)
    try confidence?.shapedArrayValue(of: Float.self)?.withUnsafeShapedBufferPointer {
      try map.add(confidence: $0, shape: $1, strides: $2)
    }
    return .segmentation(map)
  }

  /// Reads a class map of any form.
  private func readMap(_ value: MLFeatureValue) throws -> ClassMap {
    switch mapType {
    case .int32:
      if let array = value.shapedArrayValue(of: Int32.self) {
        return try array.withUnsafeShapedBufferPointer { values, shape, strides in
          try ClassMap(classes: values, shape: shape, strides: strides)
        }
      }
    case .uint8:
      if let array = value.multiArrayValue {
        return try array.withUnsafeBytes { bytes in
          try ClassMap(
            classes: bytes.bindMemory(to: UInt8.self), shape: array.shape.map(\.intValue),
            strides: array.strides.map(\.intValue))
        }
      }
    case .image:
      if let buffer = value.imageBufferValue { return try classMap(of: buffer) }
    }
    throw ModelError.missingOutput(name)
  }

  /// Reads a classifier's probabilities by label.
  func read(probabilities: [String: Double], top: Int) -> ImageAnswer {
    .classification(topK(probabilities, labels: labels, k: top))
  }

  /// Reads an array; only the closure for the output's element type is called.
  func read(
    integers: () -> MLShapedArray<Int32>?, floats: () -> MLShapedArray<Float>?, top: Int
  ) throws -> ImageAnswer {
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
      let scores = try vector(floats())
      let activate = activation == .sigmoid ? sigmoid : softmax
      return .classification(topK(areLogits ? activate(scores) : scores, labels: labels, k: top))
    case .values:
      return .values(
        try vector(floats()).enumerated().map { index, value in
          ClassScore(
            index: index, label: index < labels.count ? labels[index] : "\(index)",
            score: Double(value))
        })
    case .embedding:
      return .embedding(try vector(floats()))
    case .dictionary:
      throw ModelError.missingOutput(name)
    }
  }

  private func vector(_ array: MLShapedArray<Float>?) throws -> [Float] {
    guard let array else { throw ModelError.missingOutput(name) }
    return array.withUnsafeShapedBufferPointer { values, shape, strides in
      // (1, classes): the stride of the last axis, which padding may make larger than 1.
      (0..<(shape.last ?? 0)).map { values[$0 * (strides.last ?? 1)] }
    }
  }
}

private let confidenceName = "confidence"
#endif
