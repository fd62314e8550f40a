#if canImport(CoreML)
import CoreML
import Foundation
import MViTKit

extension ImageModel {
  /// Reads how Core ML plans to share the model's work between the parts of the chip.
  ///
  /// - Throws: ``ModelError/unsupportedOutput(_:)`` for a model that is no ML Program, or Core ML's
  ///   own error.
  @available(iOS 17.4, macOS 14.4, tvOS 17.4, visionOS 1.1, *)
  public nonisolated func computePlan() async throws -> ComputePlanSummary {
    let functionName = information.metadata.isMultifunction ? information.function.name : nil
    let plan = try await MLComputePlan.load(
      contentsOf: information.compiledURL,
      configuration: try information.units.configuration(functionName: functionName))
    guard case .program(let program) = plan.modelStructure,
      let function = program.functions[functionName ?? "main"] ?? program.functions.values.first
    else { throw ModelError.unsupportedOutput("no ML Program") }
    var operations: [PlannedOperation] = []
    Self.collect(function.block.operations, plan: plan, into: &operations)
    return ComputePlanSummary(operations)
  }

  @available(iOS 17.4, macOS 14.4, tvOS 17.4, visionOS 1.1, *)
  private nonisolated static func collect(
    _ found: [MLModelStructure.Program.Operation], plan: MLComputePlan,
    into operations: inout [PlannedOperation]
  ) {
    for operation in found {
      // Constants run nowhere: they have no device.
      if let usage = plan.deviceUsage(for: operation) {
        let device: ComputeDevice
        switch usage.preferred {
        case .cpu: device = .cpu
        case .gpu: device = .gpu
        case .neuralEngine: device = .neuralEngine
        @unknown default: continue
        }
        operations.append(
          PlannedOperation(
            name: operation.operatorName, device: device,
            weight: plan.estimatedCost(of: operation)?.weight))
      }
      for block in operation.blocks { collect(block.operations, plan: plan, into: &operations) }
    }
  }
}
#endif
