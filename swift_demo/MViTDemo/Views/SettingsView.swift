import MViTCoreML
import MViTKit
import SwiftUI

/// Compute units, the way to the input, latency and Core ML's plan.
struct SettingsView: View {
  @Bindable var demo: DemoModel
  @Environment(\.dismiss) private var dismiss
  @State private var plan: ComputePlanSummary?
  @State private var planProblem: String?

  var body: some View {
    NavigationStack {
      Form {
        Section("Compute Units") {
          Picker("Compute Units", selection: $demo.units) {
            ForEach(ComputeUnits.allCases) { Text($0.title).tag($0) }
          }
          .pickerStyle(.inline)
          .labelsHidden()
        }
        Section {
          Picker("Resizing", selection: $demo.path) {
            ForEach(InputPath.allCases) { Text($0.title).tag($0) }
          }
          if let functions = demo.model?.information.metadata.functions, functions.count > 1 {
            Picker("Function", selection: $demo.function) {
              ForEach(functions, id: \.name) { Text($0.name).tag($0.name) }
            }
          }
        } header: {
          Text("Input")
        } footer: {
          Text(
            localized(
              "Exact gives Python’s pixels, for lossless sRGB pictures. Vision is faster and near.")
          )
        }
        Section("Latency") {
          LatencyView(demo: demo)
          Button("Measure 50 Predictions") { demo.measure() }
            .disabled(demo.picture == nil || demo.model == nil || demo.isMeasuring)
        }
        Section("Compute Plan") { planRows }
      }
      .navigationTitle("Performance")
      .navigationBarTitleDisplayMode(.inline)
      .toolbar {
        ToolbarItem(placement: .confirmationAction) {
          Button("Done") { dismiss() }
        }
      }
      .task(id: demo.generation) { await readPlan() }
    }
  }

  @ViewBuilder private var planRows: some View {
    if let plan {
      ForEach(plan.lines, id: \.self) { Text($0) }
      Text("A prediction of Core ML, not proof of where it ran.")
        .font(.caption)
        .foregroundStyle(.secondary)
    } else {
      Text(planProblem ?? localized("Reading…"))
        .foregroundStyle(.secondary)
    }
  }

  private func readPlan() async {
    plan = nil
    planProblem = nil
    guard let model = demo.model as? ImageModel else {
      planProblem = localized("No model is loaded.")
      return
    }
    guard #available(iOS 17.4, *) else {
      planProblem = localized("Needs iOS 17.4.")
      return
    }
    do {
      plan = try await model.computePlan()
    } catch {
      planProblem = error.localizedDescription
    }
  }
}
