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
    .accessibilityLabel(Spoken.latency(median: demo.latency.median, p95: demo.latency.p95))
  }

  private var figures: String {
    var parts = [
      localized("median %@", FigureFormat.milliseconds(demo.latency.median)),
      localized("p95 %@", FigureFormat.milliseconds(demo.latency.p95)),
    ]
    if demo.mode == .camera {
      parts.append(FigureFormat.framesPerSecond(demo.latency.framesPerSecond))
    }
    return parts.joined(separator: " · ")
  }

  private var explanation: String {
    guard let timing = demo.latency.timing else { return demo.units.title }
    return "\(demo.units.title) · \(timing.explanation)"
  }
}
