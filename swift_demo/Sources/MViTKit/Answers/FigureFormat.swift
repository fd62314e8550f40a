import Foundation

/// Figures as tools and logs write them: with a point, whatever the locale.
public enum FigureFormat {
  /// A number with a fixed count of decimals.
  public static func fixed(_ value: Double, digits: Int) -> String {
    String(format: "%.\(digits)f", locale: Locale(identifier: "en_US_POSIX"), value)
  }

  /// A share as percent: `97.3 %`, but `< 0.1 %` and `> 99.9 %` rather than a false 0 or 100.
  public static func percent(_ share: Double) -> String {
    guard share.isFinite else { return "–" }
    if share > 0, share < 0.001 { return "< 0.1 %" }
    if share < 1, share > 0.999 { return "> 99.9 %" }
    return fixed(100 * share, digits: 1) + " %"
  }

  /// A duration in milliseconds: `3.42 ms`, `124 ms`, a dash for none.
  public static func milliseconds(_ seconds: Double?) -> String {
    guard let seconds, seconds.isFinite else { return "–" }
    let value = seconds * 1000
    return fixed(value, digits: value < 10 ? 2 : value < 100 ? 1 : 0) + " ms"
  }

  /// Frames a second: `29.8 fps`, a dash for none.
  public static func framesPerSecond(_ rate: Double?) -> String {
    guard let rate, rate.isFinite else { return "–" }
    return fixed(rate, digits: 1) + " fps"
  }
}
