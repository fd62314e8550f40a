import Foundation

/// A package that does not say what an app must know, or says it wrongly.
public struct MetadataError: Error, Hashable, Sendable {
  /// The key of the metadata at fault, such as `mvit_coreml.preprocessing`.
  public let key: String
  /// What is wrong with it, and where.
  public let problem: String

  /// An error of a key.
  public init(key: String, problem: String) {
    self.key = key
    self.problem = problem
  }
}

extension MetadataError: CustomStringConvertible, LocalizedError {
  /// The key and what is wrong with it.
  public var description: String { "\(key): \(problem)" }
  /// The same.
  public var errorDescription: String? { description }
}
