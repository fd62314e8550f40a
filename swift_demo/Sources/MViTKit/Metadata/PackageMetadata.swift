/// What a model is for.
public enum PackageTask: String, CaseIterable, Hashable, Sendable {
  /// One class for the whole picture.
  case imageClassification = "image-classification"
  /// A class for every pixel.
  case semanticSegmentation = "semantic-segmentation"
  /// Features for a model of the app's own.
  case backbone
}

/// What a model answers.
public enum PackageOutput: String, CaseIterable, Hashable, Sendable {
  /// A probability for every class; of a classifier by name, of a segmenter for every position.
  case probabilities
  /// A score for every class.
  case logits
  /// The index of the most likely class for every position.
  case classes
  /// The values of a regression.
  case values
  /// Feature maps.
  case features
  /// Features of the whole picture as a vector of length 1.
  case embedding
}

/// What a classifier's logits go through, in the package or in the app.
public enum ScoreActivation: String, CaseIterable, Hashable, Sendable {
  /// A picture has one class; the probabilities add up to 1.
  case softmax
  /// A picture may have several labels, or none; each probability stands alone.
  case sigmoid
  /// The numbers are the values of a regression.
  case none
}

/// The form of a class map.
public enum ClassMapType: String, CaseIterable, Hashable, Sendable {
  /// An array of 32 bits.
  case int32
  /// An array of 8 bits, from iOS 26 on.
  case uint8
  /// A grayscale image.
  case image
}

/// What a package made by mvit-coreml says about itself.
public struct PackageMetadata: Hashable, Sendable {
  /// What the model is for.
  public let task: PackageTask
  /// What it answers.
  public let output: PackageOutput
  /// What a classifier's logits go through.
  public let activation: ScoreActivation
  /// The form of the class map, of segmenters that answer classes.
  public let mapType: ClassMapType
  /// Its functions, from the smallest input to the largest; never empty.
  public let functions: [PackageFunction]
  /// Class names in order of class index. `nil` for features, and for classifiers that answer
  /// probabilities: their names are Core ML's `classLabels`.
  public let labels: [String]?
  /// A colour for every class, of segmenters that answer classes.
  public let colors: [RGBColor]?
  /// The checkpoint that was converted.
  public let source: String
  /// SHA-256 of that checkpoint's weights, in hexadecimal.
  public let weightsSHA256: String
  /// Precision of the arithmetic: `fp16`, `fp32` or `mixed`.
  public let precision: String
  /// Bits of the palettized weights, such as `4, 6, 8`; empty without palettes.
  public let bits: String

  /// Reads a package's own keys.
  ///
  /// - Parameter userDefined: the dictionary that Core ML keeps under
  ///   `MLModelMetadataKey.creatorDefinedKey`.
  /// - Throws: ``MetadataError`` with the key at fault.
  public init(userDefined: [String: String]) throws(MetadataError) {
    let keys = MetadataKeys(userDefined)
    functions = try Self.readFunctions(keys.json(MetadataKeys.preprocessing))
    task = try keys.oneOf(MetadataKeys.task)
    output = try keys.oneOf(MetadataKeys.output)
    guard Self.outputs(of: task).contains(output) else {
      throw MetadataError(
        key: MetadataKeys.output,
        problem: "is \(output.rawValue), which does not apply to \(task.rawValue)")
    }
    activation = try keys.oneOf(MetadataKeys.activation, default: .softmax)
    mapType = try keys.oneOf(MetadataKeys.mapType, default: .int32)
    switch (task, output) {
    case (.semanticSegmentation, .classes):
      let preview = try keys.json(MetadataKeys.previewParameters)
      let labels = try Self.readLabels(preview.member("labels"))
      self.labels = labels
      colors = try Self.readColors(preview.member("colors"), count: labels.count)
    case (_, .features), (_, .embedding), (.imageClassification, .probabilities):
      labels = nil
      colors = nil
    default:
      labels = try Self.readLabels(keys.json(MetadataKeys.labels))
      colors = nil
    }
    source = userDefined["mvit_coreml.source"] ?? ""
    weightsSHA256 = userDefined["mvit_coreml.weights_sha256"] ?? ""
    precision = userDefined["mvit_coreml.precision"] ?? ""
    bits = userDefined["mvit_coreml.bits"] ?? ""
  }

  /// Whether the package holds the model for several input sizes; needs iOS 18 or macOS 15.
  public var isMultifunction: Bool { functions.count > 1 }

  /// The package's colours; where it has none, those that a conversion would give its classes.
  ///
  /// - Parameter count: number of classes, for packages that do not name them.
  public func palette(count: Int = 0) -> ClassPalette {
    if let colors { return ClassPalette(colors: colors) }
    guard let labels, labels.count >= count else { return .distinct(count) }
    return ClassPalette(labels: labels)
  }

  private static func readFunctions(_ field: JSONField) throws(MetadataError) -> [PackageFunction] {
    var functions: [PackageFunction] = []
    for (name, description) in try field.members() {
      functions.append(try PackageFunction(name: name, description))
    }
    guard !functions.isEmpty else {
      throw MetadataError(key: field.key, problem: "describes no function")
    }
    return functions.sorted {
      ($0.inputSize.area, $0.inputSize.width, $0.name)
        < ($1.inputSize.area, $1.inputSize.width, $1.name)
    }
  }

  private static func readLabels(_ field: JSONField) throws(MetadataError) -> [String] {
    var labels: [String] = []
    for element in try field.elements() { labels.append(try element.text()) }
    guard !labels.isEmpty else { throw field.mustBe("a list of class names") }
    return labels
  }

  private static func readColors(
    _ field: JSONField, count: Int
  ) throws(MetadataError) -> [RGBColor] {
    let elements = try field.elements()
    guard elements.count >= count else {
      throw field.mustBe("a list of \(count) colours, one for each label")
    }
    var colors: [RGBColor] = []
    for element in elements.prefix(count) {
      guard case .string(let text) = element.value, let color = RGBColor(hex: text) else {
        throw element.mustBe("a colour of the form #RRGGBB")
      }
      colors.append(color)
    }
    return colors
  }

  private static func outputs(of task: PackageTask) -> Set<PackageOutput> {
    switch task {
    case .imageClassification: [.probabilities, .logits, .values, .features, .embedding]
    case .semanticSegmentation: [.classes, .probabilities, .logits, .features, .embedding]
    case .backbone: [.features, .embedding]
    }
  }
}
