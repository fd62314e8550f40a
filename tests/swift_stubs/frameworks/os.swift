// Interface of the part of the unified logging system that MViTCoreML uses, for type-checking off
// Apple systems. Bodies are unreachable: nothing is ever linked against this module.

public struct OSLogPrivacy: Sendable {
  public static var auto: OSLogPrivacy { fatalError() }
  public static var `public`: OSLogPrivacy { fatalError() }
}

public struct OSLogInterpolation: StringInterpolationProtocol {
  public init(literalCapacity: Int, interpolationCount: Int) { fatalError() }
  public mutating func appendLiteral(_ literal: String) { fatalError() }
  public mutating func appendInterpolation(
    _ argument: @autoclosure @escaping () -> String, privacy: OSLogPrivacy = .auto
  ) { fatalError() }
}

public struct OSLogMessage: ExpressibleByStringInterpolation, ExpressibleByStringLiteral {
  public init(stringInterpolation: OSLogInterpolation) { fatalError() }
  public init(stringLiteral value: String) { fatalError() }
}

@frozen public struct Logger {
  public init(subsystem: String, category: String) { fatalError() }
  public func info(_ message: OSLogMessage) { fatalError() }
  public func error(_ message: OSLogMessage) { fatalError() }
}

public struct OSSignpostID: Sendable {
  public static let exclusive = OSSignpostID()
}

@frozen public struct OSSignposter {
  public init(subsystem: String, category: String) { fatalError() }
  public func withIntervalSignpost<T>(
    _ name: StaticString, id: OSSignpostID = .exclusive, around task: () throws -> T
  ) rethrows -> T { try task() }
}

#if SENDABLE
extension Logger: @unchecked Sendable {}
extension OSSignposter: @unchecked Sendable {}
#endif
