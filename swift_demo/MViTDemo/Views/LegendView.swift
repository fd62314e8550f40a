import MViTCoreML
import MViTKit
import SwiftUI

/// The classes in the picture with their colours; a tap hides one.
struct LegendView: View {
  let demo: DemoModel
  let shares: [ClassShare]
  let information: ModelInformation
  @ScaledMetric private var swatch = 20.0

  var body: some View {
    VStack(alignment: .leading, spacing: 8) {
      ForEach(shares) { share in
        Button {
          demo.toggle(share.classIndex)
        } label: {
          row(share)
        }
        .buttonStyle(.plain)
        .accessibilityLabel(
          Spoken.share(of: label(of: share.classIndex), share.fraction)
        )
        .accessibilityHint(
          isHidden(share) ? localized("Hidden. Shows the class") : localized("Hides the class"))
      }
    }
  }

  private func row(_ share: ClassShare) -> some View {
    HStack {
      RoundedRectangle(cornerRadius: 4)
        .fill(color(of: share.classIndex))
        .frame(width: swatch, height: swatch)
        .opacity(isHidden(share) ? 0.2 : 1)
      Text(label(of: share.classIndex))
        .strikethrough(isHidden(share))
      Spacer()
      Text(FigureFormat.percent(share.fraction))
        .font(.body.monospacedDigit())
        .foregroundStyle(.secondary)
    }
    .contentShape(Rectangle())
  }

  private func isHidden(_ share: ClassShare) -> Bool {
    demo.hiddenClasses.contains(share.classIndex)
  }

  private func label(of index: Int) -> String {
    information.label(of: index)
  }

  private func color(of index: Int) -> Color {
    guard let color = information.palette[index] else { return .clear }
    return Color(
      .sRGB, red: Double(color.red) / 255, green: Double(color.green) / 255,
      blue: Double(color.blue) / 255)
  }
}
