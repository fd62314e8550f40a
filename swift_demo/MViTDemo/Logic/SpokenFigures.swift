import Foundation
import MViTKit

/// What VoiceOver says: words, not symbols.
enum Spoken {
  /// About a class and its probability.
  static func score(_ score: ClassScore) -> String {
    localized("%@, %@ percent", score.label, FigureFormat.fixed(100 * score.score, digits: 0))
  }

  /// About a class's share of a picture.
  static func share(of label: String, _ share: Double) -> String {
    localized("%@, %@ percent of the picture", label, FigureFormat.fixed(100 * share, digits: 0))
  }

  /// About the latency.
  static func latency(median: Double?, p95: Double?) -> String {
    guard let median, let p95 else { return localized("No latency measured yet") }
    return localized(
      "Prediction takes %@ milliseconds in the median, %@ at the 95th percentile",
      FigureFormat.fixed(median * 1000, digits: 1), FigureFormat.fixed(p95 * 1000, digits: 1))
  }
}
