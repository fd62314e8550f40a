/// How a picture is brought to a model's input.
public enum InputPath: String, CaseIterable, Hashable, Sendable, Identifiable {
  /// MViTKit's resize: the same bytes as Pillow's from the same pixels.
  ///
  /// The pixels are the same where the picture is lossless and in sRGB. Apple's decoders of JPEG and
  /// HEIC round differently from libjpeg, and pictures in other colour spaces are converted.
  case exact
  /// Vision's resize with the equal region of interest: faster, nearly the same pixels.
  case fast

  /// Itself, unique.
  public var id: Self { self }
}

/// What a model says about a picture.
public enum ImageAnswer: Hashable, Sendable {
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

/// How long an answer took, each part in seconds.
public struct PredictionTiming: Hashable, Sendable {
  /// For decoding the picture's file; 0 for frames and for photos that were decoded before.
  public let decoding: Double
  /// For resizing; 0 on the fast path, where Vision does it within the prediction.
  public let resizing: Double
  /// For `MLModel.prediction` alone; on the fast path for all that Vision does.
  public let prediction: Double
  /// The path that was taken: exact also where fast was asked for but cannot fit the picture.
  public let path: InputPath

  /// Puts the parts together.
  public init(decoding: Double = 0, resizing: Double, prediction: Double, path: InputPath) {
    self.decoding = decoding
    self.resizing = resizing
    self.prediction = prediction
    self.path = path
  }
}

/// An answer with what is needed to show it.
public struct ImagePrediction: Hashable, Sendable {
  /// What the model says.
  public let answer: ImageAnswer
  /// How the picture lies on the model's input.
  public let placement: Placement
  /// How long it took.
  public let timing: PredictionTiming

  /// Puts an answer together.
  public init(answer: ImageAnswer, placement: Placement, timing: PredictionTiming) {
    self.answer = answer
    self.placement = placement
    self.timing = timing
  }
}
