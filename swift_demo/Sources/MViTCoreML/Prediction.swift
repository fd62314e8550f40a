#if canImport(CoreML)
import Foundation
import MViTKit

/// How a picture is brought to a model's input.
public enum InputPath: String, CaseIterable, Hashable, Sendable, Identifiable {
  /// MViTKit's resize: the same bytes as in Python.
  case exact
  /// Vision's resize with the equal region of interest: faster, nearly the same pixels.
  case fast

  /// Itself, unique.
  public var id: Self { self }

  /// Its name for people.
  public var title: String {
    switch self {
    case .exact: "Exact"
    case .fast: "Vision"
    }
  }
}

/// What a model says about a picture.
public enum Answer: Hashable, Sendable {
  /// Classes with their probabilities, the likeliest first. Where a picture may have several labels
  /// each probability stands alone.
  case classification([ClassScore])
  /// A class for every cell of the model's input.
  case segmentation(ClassMap)
  /// The values of a regression, in the model's order.
  case values([ClassScore])
  /// Features of the picture as a vector of length 1.
  case embedding([Float])

  /// Classes with their probabilities, or what a regression says; empty for maps and embeddings.
  public var scores: [ClassScore] {
    switch self {
    case .classification(let scores), .values(let scores): scores
    case .segmentation, .embedding: []
    }
  }
}

/// How long an answer took.
public struct PredictionTiming: Hashable, Sendable {
  /// Seconds for resizing; 0 on the fast path, where Vision does it within the prediction.
  public let preparation: Double
  /// Seconds for `MLModel.prediction` alone; on the fast path for all that Vision does.
  public let prediction: Double
  /// The path that was taken: exact also where fast was asked for but cannot fit the picture.
  public let path: InputPath
}

/// An answer with what is needed to show it.
public struct Prediction: Hashable, Sendable {
  /// What the model says.
  public let answer: Answer
  /// How the picture lies on the model's input.
  public let placement: Placement
  /// How long it took.
  public let timing: PredictionTiming
}
#endif
