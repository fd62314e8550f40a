import MViTCoreML
import MViTKit
import SwiftUI

/// What the model says, and how long it took.
struct AnswerView: View {
  @Bindable var demo: DemoModel

  var body: some View {
    ScrollView {
      VStack(alignment: .leading, spacing: 16) {
        LatencyView(demo: demo)
        if demo.loadState.isBusy {
          ProgressView {
            Text(progress)
          }
        } else if let shown = demo.shown {
          switch shown.answer {
          case .classification(let scores): ClassificationView(scores: scores)
          case .values(let values): ValuesView(values: values)
          case .embedding(let vector):
            Text(
              localized(
                "A vector of %@ numbers, to find similar pictures by.", String(vector.count)))
          case .segmentation:
            OpacitySlider(opacity: $demo.opacity)
            LegendView(demo: demo, shares: shown.shares, information: shown.information)
          }
        }
      }
      .frame(maxWidth: .infinity, alignment: .leading)
      .padding(.horizontal)
    }
  }

  private var progress: String {
    switch demo.loadState {
    case .compiling(let name): localized("Compiling %@…", name)
    case .loading(let name): localized("Loading %@…", name)
    default: ""
    }
  }
}

/// The likeliest classes as bars.
struct ClassificationView: View {
  let scores: [ClassScore]

  var body: some View {
    VStack(alignment: .leading, spacing: 12) {
      ForEach(scores) { score in
        VStack(alignment: .leading, spacing: 4) {
          HStack(alignment: .firstTextBaseline) {
            Text(score.label)
              .font(score.id == scores.first?.id ? .headline : .body)
            Spacer()
            Text(FigureFormat.percent(score.score))
              .font(.body.monospacedDigit())
              .foregroundStyle(.secondary)
          }
          ProgressView(value: min(max(score.score, 0), 1))
        }
        .accessibilityElement(children: .ignore)
        .accessibilityLabel(Spoken.score(score))
      }
    }
  }
}

/// The values of a regression.
struct ValuesView: View {
  let values: [ClassScore]

  var body: some View {
    VStack(alignment: .leading, spacing: 12) {
      ForEach(values) { value in
        HStack(alignment: .firstTextBaseline) {
          Text(value.label)
          Spacer()
          Text(FigureFormat.fixed(value.score, digits: 3))
            .font(.body.monospacedDigit())
            .foregroundStyle(.secondary)
        }
      }
    }
  }
}

/// How strongly the classes cover the picture.
struct OpacitySlider: View {
  @Binding var opacity: Double

  var body: some View {
    HStack {
      Image(systemName: "circle.lefthalf.filled")
        .accessibilityHidden(true)
      Slider(value: $opacity, in: 0...1)
        .accessibilityLabel("Opacity of the classes")
        .accessibilityValue(FigureFormat.percent(opacity))
    }
  }
}
