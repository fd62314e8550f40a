// Interface of the part of Uniform Type Identifiers that the app uses, for type-checking off Apple
// systems. Bodies are unreachable: nothing is ever linked against this module.
import Foundation

// Foundation's own on Apple systems, and absent elsewhere.
extension URL {
  public func startAccessingSecurityScopedResource() -> Bool { fatalError() }
  public func stopAccessingSecurityScopedResource() { fatalError() }
}

public struct UTType: Hashable, Sendable {
  public init?(_ identifier: String) { fatalError() }
  public init?(filenameExtension: String, conformingTo supertype: UTType = .data) { fatalError() }
  public init(importedAs identifier: String, conformingTo parentType: UTType? = nil) {
    fatalError()
  }
  public static var data: UTType { fatalError() }
  public static var directory: UTType { fatalError() }
  public static var folder: UTType { fatalError() }
  public static var package: UTType { fatalError() }
}
