import MViTCoreML
import MViTKit
import SwiftUI

/// Median and 95th percentile of the prediction alone, resizing apart.
struct LatencyView: View {
  let demo: DemoModel

  var body: some View {
    VStack(alignment: .leading, spacing: 2) {
      Text(figures)
        .font(.callout.monospacedDigit())
      Text(explanation)
        .font(.caption)
        .foregroundStyle(.secondary)
    }
    .accessibilityElement(children: .ignore)
    .accessibilityLabel(
      AppFormat.spokenLatency(median: demo.latency.median, p95: demo.latency.p95))
  }

  private var figures: String {
    let median = AppFormat.milliseconds(demo.latency.median)
    let p95 = AppFormat.milliseconds(demo.latency.p95)
    var parts = ["median \(median)", "p95 \(p95)"]
    if demo.mode == .camera {
      parts.append(AppFormat.framesPerSecond(demo.latency.framesPerSecond))
    }
    return parts.joined(separator: " · ")
  }

  private var explanation: String {
    let units = demo.units.title
    guard let timing = demo.shown?.prediction.timing else { return units }
    switch timing.path {
    case .exact: return "\(units) · resizing \(AppFormat.milliseconds(timing.preparation)) more"
    case .fast: return "\(units) · with Vision’s resizing"
    }
  }
}
