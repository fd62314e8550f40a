import MViTCoreML
import MViTKit
import SwiftUI

/// Whether this device answers like the Python side, on the picture that came with the model.
struct SelfTestView: View {
  let demo: DemoModel
  @Environment(\.dismiss) private var dismiss
  @State private var report: SelfTestReport?
  @State private var problem: String?

  var body: some View {
    NavigationStack {
      List {
        if let report {
          Section {
            Label(report.verdict, systemImage: report.agrees ? "checkmark.seal" : "xmark.seal")
              .font(.headline)
              .foregroundStyle(report.agrees ? .green : .red)
          }
          Section("Checks") {
            ForEach(report.checks) { row($0) }
          }
          if !report.notes.isEmpty {
            Section("For Information") {
              ForEach(report.notes) { row($0) }
            }
          }
        } else if let problem {
          Text(problem)
        } else {
          ProgressView("Comparing with Python…")
        }
      }
      .navigationTitle("Self-Test")
      .navigationBarTitleDisplayMode(.inline)
      .toolbar {
        ToolbarItem(placement: .confirmationAction) {
          Button("Done") { dismiss() }
        }
      }
      .task { await run() }
    }
  }

  private func row(_ check: SelfTestCheck) -> some View {
    Label {
      VStack(alignment: .leading) {
        Text(check.name)
        Text(check.detail)
          .font(.caption)
          .foregroundStyle(.secondary)
      }
    } icon: {
      Image(systemName: check.agrees ? "checkmark.circle" : "xmark.circle")
        .foregroundStyle(check.agrees ? .green : .red)
    }
    .accessibilityElement(children: .ignore)
    .accessibilityLabel("\(check.name) \(check.agrees ? "agrees" : "disagrees"), \(check.detail)")
  }

  private func run() async {
    guard let model = demo.model else {
      problem = "No model is loaded."
      return
    }
    guard let file = demo.selected?.selfTest else {
      problem = "No self-test came with this model; make swift-models writes one."
      return
    }
    do {
      report = try await SelfTest(contentsOf: file).run(on: model)
    } catch {
      problem = error.localizedDescription
    }
  }
}
