/// Which parts of the chip Core ML may use.
public enum ComputeUnits: String, CaseIterable, Hashable, Sendable, Identifiable {
  case all, cpuAndNeuralEngine, cpuAndGPU, cpuOnly

  /// Itself, unique.
  public var id: Self { self }

  /// What to start with: everything, but the processor alone in the simulator.
  ///
  /// The simulator has no Neural Engine, and what its GPU computes is not what a device's does.
  public static var standard: ComputeUnits {
    #if targetEnvironment(simulator)
    .cpuOnly
    #else
    .all
    #endif
  }
}
