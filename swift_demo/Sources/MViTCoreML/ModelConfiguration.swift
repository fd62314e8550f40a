#if canImport(CoreML)
import CoreML
import MViTKit

extension ComputeUnits {
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
      guard #available(iOS 18.0, macOS 15.0, tvOS 18.0, visionOS 2.0, *) else {
        throw ModelError.functionNeedsNewerSystem(functionName)
      }
      configuration.functionName = functionName
    }
    return configuration
  }
}
#endif
