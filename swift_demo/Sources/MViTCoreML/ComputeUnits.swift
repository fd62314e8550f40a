#if canImport(CoreML)
import CoreML
import MViTKit

/// Which parts of the chip Core ML may use.
public enum ComputeUnits: String, CaseIterable, Hashable, Sendable, Identifiable {
  case all, cpuAndNeuralEngine, cpuAndGPU, cpuOnly

  /// Itself, unique.
  public var id: Self { self }

  /// Its name for people.
  public var title: String {
    switch self {
    case .all: "All"
    case .cpuAndNeuralEngine: "CPU and Neural Engine"
    case .cpuAndGPU: "CPU and GPU"
    case .cpuOnly: "CPU only"
    }
  }

  var coreML: MLComputeUnits {
    switch self {
    case .all: .all
    case .cpuAndNeuralEngine: .cpuAndNeuralEngine
    case .cpuAndGPU: .cpuAndGPU
    case .cpuOnly: .cpuOnly
    }
  }

  /// A configuration with these units and, for a package with several functions, one of them.
  ///
  /// - Throws: ``ModelError/functionNeedsNewerSystem(_:)`` before iOS 18.
  func configuration(functionName: String?) throws -> MLModelConfiguration {
    let configuration = MLModelConfiguration()
    configuration.computeUnits = coreML
    if let functionName {
      guard #available(iOS 18.0, macOS 15.0, *) else {
        throw ModelError.functionNeedsNewerSystem(functionName)
      }
      configuration.functionName = functionName
    }
    return configuration
  }
}
#endif
