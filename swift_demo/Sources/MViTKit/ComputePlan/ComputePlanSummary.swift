/// A part of the chip that runs operations.
public enum ComputeDevice: String, Hashable, Sendable, CaseIterable {
  case neuralEngine, gpu, cpu
}

/// One operation of a program as Core ML plans to run it.
public struct PlannedOperation: Hashable, Sendable {
  /// Name of the operation's type, such as `ios17.conv`.
  public let name: String
  /// Where it would run.
  public let device: ComputeDevice
  /// Estimated share of the program's work, from 0 to 1; `nil` where Core ML does not say.
  public let weight: Double?

  /// Creates an operation.
  public init(name: String, device: ComputeDevice, weight: Double?) {
    self.name = name
    self.device = device
    self.weight = weight
  }
}

/// How Core ML plans to share a program's work; a prediction, not proof of execution.
public struct ComputePlanSummary: Hashable, Sendable {
  /// The share of one device.
  public struct Share: Hashable, Sendable, Identifiable {
    /// The device.
    public let device: ComputeDevice
    /// Operations that would run there.
    public let operations: Int
    /// Their share of the work, from 0 to 1.
    public let work: Double

    /// The device, unique within a summary.
    public var id: ComputeDevice { device }
  }

  /// Every device with work, the one with most work first.
  public let shares: [Share]
  /// Whether the shares follow Core ML's cost estimate; otherwise they count operations.
  public let isWeighted: Bool
  /// Types of the operations away from the device with most work, with how many there are.
  public let elsewhere: [String: Int]

  /// Sums up a program's operations.
  public init(_ operations: [PlannedOperation]) {
    let total = operations.compactMap(\.weight).reduce(0, +)
    isWeighted = total > 0 && total.isFinite
    let weighted = isWeighted
    shares = ComputeDevice.allCases.compactMap { device in
      let own = operations.filter { $0.device == device }
      guard !own.isEmpty else { return nil }
      let work =
        weighted
        ? own.compactMap(\.weight).reduce(0, +) / total
        : Double(own.count) / Double(operations.count)
      return Share(device: device, operations: own.count, work: work)
    }.sorted { $0.work > $1.work }
    let main = shares.first?.device
    elsewhere = operations.filter { $0.device != main }.reduce(into: [:]) { counts, operation in
      counts[operation.name, default: 0] += 1
    }
  }
}
