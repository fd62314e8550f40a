import Foundation

extension PackageMetadata {
  /// Reads what a compiled model says about itself, without loading it.
  ///
  /// Xcode and `coremlcompiler` write `metadata.json` into an `.mlmodelc`: a list of one object, with
  /// a package's own keys under `userDefinedMetadata`.
  ///
  /// - Parameter compiled: an `.mlmodelc` folder.
  /// - Returns: `nil` where there is no such file, and only Core ML can tell.
  /// - Throws: ``MetadataError`` for a package of another tool.
  public init?(compiled: URL) throws(MetadataError) {
    struct Content: Decodable { let userDefinedMetadata: [String: String]? }
    let file = compiled.appendingPathComponent("metadata.json")
    guard let data = try? Data(contentsOf: file),
      let content = try? JSONDecoder().decode([Content].self, from: data),
      let found = content.first?.userDefinedMetadata
    else { return nil }
    try self.init(userDefined: found)
  }

  /// Reads what a model says about itself, without loading it: a package, or its compiled form.
  ///
  /// - Returns: `nil` where only Core ML can tell.
  /// - Throws: ``MetadataError`` for a package of another tool.
  public init?(model: URL) throws(MetadataError) {
    if let description = try? PackageDescription(package: model) {
      try self.init(userDefined: description.userDefined)
    } else {
      try self.init(compiled: model)
    }
  }
}
