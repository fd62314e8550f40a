import Foundation

/// How hot the device says it is; the cases are those of `ProcessInfo.ThermalState`.
public enum ThermalLevel: Int, CaseIterable, Hashable, Sendable {
  case nominal, fair, serious, critical

  /// The device's, now; nominal where the system does not tell.
  public static var current: ThermalLevel {
    #if canImport(Darwin)
    switch ProcessInfo.processInfo.thermalState {
    case .nominal: .nominal
    case .fair: .fair
    case .serious: .serious
    case .critical: .critical
    @unknown default: .serious
    }
    #else
    .nominal
    #endif
  }
}

/// How many frames a second are answered, by how hot the device is.
///
/// A device that is left at full load throttles anyway, in jumps; fewer frames on purpose keep the
/// rate steady and the picture smooth.
public struct FramePacing: Hashable, Sendable {
  /// Frames a second of a cool device, at most; infinite for as many as come.
  public var nominal: Double
  /// Frames a second of a warm device.
  public var fair: Double
  /// Frames a second of a hot device.
  public var serious: Double
  /// Frames a second of a device that is about to pause the app.
  public var critical: Double

  /// A pacing with these rates, of which none counts as less than one frame in ten seconds.
  public init(
    nominal: Double = .infinity, fair: Double = 30, serious: Double = 10, critical: Double = 2
  ) {
    self.nominal = nominal
    self.fair = fair
    self.serious = serious
    self.critical = critical
  }

  /// As many frames as come, however hot the device is.
  public static let unlimited = FramePacing(
    nominal: .infinity, fair: .infinity, serious: .infinity, critical: .infinity)

  /// The least time from one frame's start to the next one's.
  public func interval(at level: ThermalLevel) -> Duration {
    let rate =
      switch level {
      case .nominal: nominal
      case .fair: fair
      case .serious: serious
      case .critical: critical
      }
    guard rate.isFinite else { return .zero }
    return .seconds(1 / max(rate, 0.1))
  }
}
