import MViTCoreML
import MViTKit
import SwiftUI

/// Whether this device answers like the Python side, on the picture that came with the model.
struct SelfTestView: View {
  let demo: DemoModel
  @Environment(\.dismiss) private var dismiss
  @State private var report: SelfTestReport?
  @State private var problem: String?
  @State private var everywhere: [SelfTestCheck] = []
  @State private var isRunningEverywhere = false

  var body: some View {
    NavigationStack {
      List {
        if let report {
          Section {
            Label(
              report.verdictForPeople, systemImage: report.agrees ? "checkmark.seal" : "xmark.seal"
            )
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
          Section("Compute Units") {
            ForEach(everywhere) { row($0) }
            Button("Compare Every Compute Unit") { Task { await runEverywhere() } }
              .disabled(isRunningEverywhere)
          }
        }
        if let problem {
          Text(problem)
        } else if report == nil {
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
    .accessibilityLabel(
      check.agrees
        ? localized("%@ agrees, %@", check.name, check.detail)
        : localized("%@ disagrees, %@", check.name, check.detail))
  }

  private func run() async {
    guard let model = demo.model as? ImageModel else {
      problem = localized("No model is loaded.")
      return
    }
    guard let file = demo.selected?.selfTest else {
      problem = localized("No self-test came with this model; make swift-models writes one.")
      return
    }
    do {
      report = try await SelfTest(contentsOf: file).run(on: model)
    } catch {
      problem = error.localizedDescription
    }
  }

  /// Loads the model once for every way to compute, and compares each with Python.
  private func runEverywhere() async {
    guard let entry = demo.selected, let file = entry.selfTest else { return }
    isRunningEverywhere = true
    defer { isRunningEverywhere = false }
    do {
      everywhere = try await SelfTest(contentsOf: file).run(model: entry.url).map {
        SelfTestCheck(
          name: $0.units.title, agrees: $0.report.agrees, detail: $0.report.verdictForPeople)
      }
    } catch {
      problem = error.localizedDescription
    }
  }
}
