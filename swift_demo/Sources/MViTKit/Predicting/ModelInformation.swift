import Foundation

/// What there is to know about a loaded model; all of it comes from its package.
public struct ModelInformation: Hashable, Sendable {
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
  /// Colours of the classes.
  public let palette: ClassPalette

  /// Puts a model's facts together; a stand-in for a model in tests and previews does, too.
  public init(
    name: String, compiledURL: URL, units: ComputeUnits, metadata: PackageMetadata,
    function: PackageFunction, labels: [String], programSHA256: String? = nil
  ) {
    self.name = name
    self.compiledURL = compiledURL
    self.units = units
    self.metadata = metadata
    self.function = function
    self.labels = labels
    self.programSHA256 = programSHA256
    // Kept, as colours of many classes take long to choose.
    palette = metadata.palette(count: labels.count)
  }

  /// Size and fit of the input.
  public var preprocessing: Preprocessing { function.preprocessing }

  /// The name of a class, or its index where it has none.
  public func label(of classIndex: Int) -> String {
    labels.indices.contains(classIndex) ? labels[classIndex] : "\(classIndex)"
  }
}
