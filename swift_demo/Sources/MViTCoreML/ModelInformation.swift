#if canImport(CoreML)
import Foundation
import MViTKit

/// What there is to know about a loaded model; all of it comes from its package.
public struct ModelInformation: Sendable {
  /// Name of the package's folder without its suffix.
  public let name: String
  /// Where the compiled model lies.
  public let compiledURL: URL
  /// The compute units it was loaded with.
  public let units: ComputeUnits
  /// What the package says.
  public let metadata: PackageMetadata
  /// The function in use.
  public let function: PackageFunction
  /// Class names by index.
  public let labels: [String]
  /// Fingerprint of the program, to recognise the package by.
  public let programSHA256: String?

  /// Size and fit of the input.
  public var preprocessing: Preprocessing { function.preprocessing }
  /// Colours of the classes.
  public var palette: ClassPalette { metadata.palette(count: labels.count) }
}
#endif
