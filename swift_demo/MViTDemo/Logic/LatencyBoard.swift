import MViTKit

/// What a screen says about the latency.
struct LatencyFigures: Hashable, Sendable {
  /// The latency that half of the predictions stay below, in seconds.
  var median: Double?
  /// The latency that 19 of 20 stay below, in seconds.
  var p95: Double?
  /// Answers a second.
  var framesPerSecond: Double?
  /// The latest answer's other parts.
  var timing: PredictionTiming?
}

/// Collects latencies and says new figures twice a second at most.
///
/// Figures that changed with every frame could not be read, and would have the screen drawn anew for
/// each.
struct LatencyBoard: Sendable {
  private var ring = LatencyRing(capacity: 120)
  private var shownAt: Double?
  private let interval: Double

  /// An empty board.
  ///
  /// - Parameter interval: seconds between figures.
  init(interval: Double = 0.5) {
    self.interval = interval
  }

  /// Adds a latency.
  ///
  /// - Parameters:
  ///   - timing: of the answer.
  ///   - time: now, in seconds of a clock that only goes forward.
  /// - Returns: figures to show, `nil` where the ones shown are new enough.
  mutating func record(_ timing: PredictionTiming, at time: Double) -> LatencyFigures? {
    ring.record(seconds: timing.prediction, finishedAt: time)
    if let shownAt, time - shownAt < interval { return nil }
    shownAt = time
    return figures(timing)
  }

  /// The figures of all latencies so far.
  func figures(_ timing: PredictionTiming?) -> LatencyFigures {
    LatencyFigures(
      median: ring.median, p95: ring.p95, framesPerSecond: ring.framesPerSecond, timing: timing)
  }
}

/// Tells a failure that stays from a frame that went wrong.
struct FailureStreak: Hashable, Sendable {
  private var count = 0

  /// How many frames in a row may fail before the user hears of it.
  static let patience = 5

  /// Notes what became of a frame.
  ///
  /// - Returns: whether the failure is to be shown.
  mutating func note(failed: Bool) -> Bool {
    count = failed ? count + 1 : 0
    return count >= Self.patience
  }
}
