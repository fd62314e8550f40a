import Foundation

/// A class with how likely, or how high, a model scored it.
public struct ClassScore: Hashable, Sendable, Identifiable {
  /// Class index, from 0.
  public let index: Int
  /// Class name.
  public let label: String
  /// Probability, or whatever the scores are.
  public let score: Double

  /// A score of a class.
  public init(index: Int, label: String, score: Double) {
    self.index = index
    self.label = label
    self.score = score
  }

  /// The class index.
  public var id: Int { index }
}

/// Returns the highest scores, the highest first.
///
/// Of equal scores the one of the lower class index comes first; scores that are not numbers come
/// last.
///
/// - Parameters:
///   - scores: one for each class.
///   - labels: class names; a class without one is called by its index.
///   - k: how many to return at most.
public func topK(_ scores: [Float], labels: [String], k: Int) -> [ClassScore] {
  let named = scores.enumerated().map { index, score in
    ClassScore(
      index: index, label: index < labels.count ? labels[index] : "\(index)", score: Double(score))
  }
  return highest(named, k)
}

/// Returns the highest of the probabilities that Core ML answers by name, the highest first.
///
/// - Parameters:
///   - probabilities: class name to probability; the names are unique.
///   - labels: class names in order of class index, which decides between equal probabilities.
///     Names that are not among them follow in alphabetical order.
///   - k: how many to return at most.
public func topK(_ probabilities: [String: Double], labels: [String], k: Int) -> [ClassScore] {
  let known = Set(labels)
  let order = labels + probabilities.keys.filter { !known.contains($0) }.sorted()
  let named = order.enumerated().compactMap { index, label in
    probabilities[label].map { ClassScore(index: index, label: label, score: $0) }
  }
  return highest(named, k)
}

/// Turns logits into probabilities; the largest logit may be as large as it likes.
///
/// - Returns: numbers whose sum is 1, or nothing for nothing.
public func softmax(_ logits: [Float]) -> [Float] {
  guard let largest = logits.max() else { return [] }
  let powers = logits.map { exp(Double($0) - Double(largest)) }
  let sum = powers.reduce(0, +)
  return powers.map { Float($0 / sum) }
}

/// Turns logits of labels into probabilities that stand alone, from 0 to 1.
public func sigmoid(_ logits: [Float]) -> [Float] {
  logits.map { Float(0.5 * (1 + tanh(0.5 * Double($0)))) }
}

/// Returns the cosine of two embeddings, 1 for pictures that are alike: the sum of the products.
///
/// - Returns: `nil` for vectors of different lengths, which come from different models.
public func similarity(_ one: [Float], _ other: [Float]) -> Float? {
  guard one.count == other.count else { return nil }
  return zip(one, other).reduce(0) { $0 + $1.0 * $1.1 }
}

private func highest(_ scores: [ClassScore], _ k: Int) -> [ClassScore] {
  let sorted = scores.sorted { one, other in
    if one.score == other.score { return one.index < other.index }
    if one.score.isNaN || other.score.isNaN {
      return one.score.isNaN && other.score.isNaN ? one.index < other.index : other.score.isNaN
    }
    return one.score > other.score
  }
  return Array(sorted.prefix(max(0, k)))
}
