/// The keys of a package's metadata and the texts under them.
struct MetadataKeys {
  static let preprocessing = "mvit_coreml.preprocessing"
  static let task = "mvit_coreml.task"
  static let output = "mvit_coreml.output"
  static let labels = "mvit_coreml.labels"
  static let activation = "mvit_coreml.activation"
  static let mapType = "mvit_coreml.map_type"
  static let previewParameters = "com.apple.coreml.model.preview.params"

  private let texts: [String: String]

  init(_ texts: [String: String]) {
    self.texts = texts
  }

  /// Parses the JSON under a key.
  func json(_ key: String) throws(MetadataError) -> JSONField {
    try JSONField(key: key, text: text(key))
  }

  /// Reads one of the cases of an enumeration.
  func oneOf<Choice: RawRepresentable & CaseIterable>(
    _ key: String
  ) throws(MetadataError) -> Choice where Choice.RawValue == String {
    let text = try text(key)
    guard let choice = Choice(rawValue: text) else {
      let names = Choice.allCases.map { $0.rawValue }.joined(separator: ", ")
      throw MetadataError(key: key, problem: "is '\(text)'; it must be one of \(names)")
    }
    return choice
  }

  /// Reads one of the cases of an enumeration, or its value where the key is missing.
  func oneOf<Choice: RawRepresentable & CaseIterable>(
    _ key: String, default missing: Choice
  ) throws(MetadataError) -> Choice where Choice.RawValue == String {
    texts[key] == nil ? missing : try oneOf(key)
  }

  private func text(_ key: String) throws(MetadataError) -> String {
    guard let text = texts[key] else {
      throw MetadataError(
        key: key, problem: "is missing; only packages that mvit-coreml made can be used")
    }
    return text
  }
}
