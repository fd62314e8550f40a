import Foundation

/// Why a folder is no readable package.
public struct PackageError: Error, Hashable, Sendable, CustomStringConvertible, LocalizedError {
  /// What is wrong, with the path at fault.
  public let description: String

  /// The same sentence.
  public var errorDescription: String? { description }
}

/// An input or output of a function.
public struct PackageFeature: Hashable, Sendable {
  /// What kind of value it is.
  public enum Kind: Hashable, Sendable {
    /// An image of a size.
    case image(PixelSize)
    /// Numbers of a shape.
    case multiArray(shape: [Int])
    /// Anything else, such as a text or a dictionary.
    case other
  }

  /// Its name.
  public let name: String
  /// What it is for.
  public let summary: String
  /// What kind of value it is.
  public let kind: Kind
}

/// What an .mlpackage folder declares, read without Core ML and so on any platform.
public struct PackageDescription: Hashable, Sendable {
  /// Version of the Core ML specification: 7 is iOS 16, 8 is iOS 17, 9 is iOS 18.
  public var specificationVersion = 0
  /// Who made the model.
  public var author = ""
  /// License of the weights.
  public var license = ""
  /// A sentence about the model.
  public var summary = ""
  /// Version of the package.
  public var version = ""
  /// All keys that are not Core ML's own, for ``PackageMetadata/init(userDefined:)``.
  public var userDefined: [String: String] = [:]
  /// Names of the functions of a multifunction package, else empty.
  public var functionNames: [String] = []
  /// The function that is loaded if none is asked for; empty where there is but one.
  public var defaultFunction = ""
  /// Inputs of the model, or of the first function.
  public var inputs: [PackageFeature] = []
  /// Outputs of the model, or of the first function.
  public var outputs: [PackageFeature] = []
  /// Class names of a classifier that answers probabilities by name: Core ML's `classLabels`.
  public var classLabels: [String]?

  /// Reads a package.
  ///
  /// - Parameter package: an .mlpackage folder.
  /// - Throws: ``PackageError`` for a folder that is none, or a damaged one.
  public init(package: URL) throws(PackageError) {
    let model = try Self.modelFile(of: package)
    guard let data = try? Data(contentsOf: model, options: .mappedIfSafe) else {
      throw PackageError(description: "\(model.path): cannot be read")
    }
    guard readModel([UInt8](data)[...]) else {
      throw PackageError(description: "\(model.path): is damaged; it is no Core ML model")
    }
  }

  /// Returns the file that the package's manifest names as its model.
  private static func modelFile(of package: URL) throws(PackageError) -> URL {
    struct Manifest: Decodable {
      struct Item: Decodable { let path: String }
      let itemInfoEntries: [String: Item]
      let rootModelIdentifier: String
    }
    let file = package.appendingPathComponent("Manifest.json")
    guard let content = try? Data(contentsOf: file) else {
      throw PackageError(description: "\(package.path): is no .mlpackage; it has no Manifest.json")
    }
    guard let manifest = try? JSONDecoder().decode(Manifest.self, from: content),
      let path = manifest.itemInfoEntries[manifest.rootModelIdentifier]?.path,
      !path.split(separator: "/").contains("..")
    else {
      throw PackageError(description: "\(file.path): is damaged; it names no model")
    }
    return package.appendingPathComponent("Data").appendingPathComponent(path)
  }
}

// Field numbers are those of Core ML's Model.proto and FeatureTypes.proto.
extension PackageDescription {
  private mutating func readModel(_ bytes: ArraySlice<UInt8>) -> Bool {
    var fields = ProtobufReader(bytes)
    while let field = fields.next() {
      switch field.number {
      case 1: specificationVersion = Int(truncatingIfNeeded: field.integer)
      case 2: guard readDescription(field.bytes) else { return false }
      case 502: classLabels = ClassifierLabels.read(program: field.bytes)
      default: break
      }
    }
    return fields.isSound && specificationVersion > 0
  }

  private mutating func readDescription(_ bytes: ArraySlice<UInt8>) -> Bool {
    var fields = ProtobufReader(bytes)
    while let field = fields.next() {
      switch field.number {
      case 1: inputs.append(PackageFeature(field.bytes))
      case 10: outputs.append(PackageFeature(field.bytes))
      case 20: readFunction(field.bytes)
      case 21: defaultFunction = field.text
      case 100: readMetadata(field.bytes)
      default: break
      }
    }
    return fields.isSound
  }

  private mutating func readFunction(_ bytes: ArraySlice<UInt8>) {
    let isFirst = functionNames.isEmpty
    for field in ProtobufReader(bytes) {
      switch field.number {
      case 1: functionNames.append(field.text)
      case 2 where isFirst: inputs.append(PackageFeature(field.bytes))
      case 3 where isFirst: outputs.append(PackageFeature(field.bytes))
      default: break
      }
    }
  }

  private mutating func readMetadata(_ bytes: ArraySlice<UInt8>) {
    for field in ProtobufReader(bytes) {
      switch field.number {
      case 1: summary = field.text
      case 2: version = field.text
      case 3: author = field.text
      case 4: license = field.text
      case 100:
        var (key, value) = ("", "")
        for part in ProtobufReader(field.bytes) {
          if part.number == 1 { key = part.text } else if part.number == 2 { value = part.text }
        }
        userDefined[key] = value
      default: break
      }
    }
  }
}

extension PackageFeature {
  fileprivate init(_ bytes: ArraySlice<UInt8>) {
    var (name, summary, kind) = ("", "", Kind.other)
    for field in ProtobufReader(bytes) {
      switch field.number {
      case 1: name = field.text
      case 2: summary = field.text
      case 3: kind = Kind(field.bytes)
      default: break
      }
    }
    self.init(name: name, summary: summary, kind: kind)
  }
}

extension PackageFeature.Kind {
  fileprivate init(_ bytes: ArraySlice<UInt8>) {
    self = .other
    for type in ProtobufReader(bytes) {
      switch type.number {
      case 4:
        var size = PixelSize(width: 0, height: 0)
        for field in ProtobufReader(type.bytes) {
          let value = Int(truncatingIfNeeded: field.integer)
          if field.number == 1 {
            size.width = value
          } else if field.number == 2 {
            size.height = value
          }
        }
        self = .image(size)
      case 5:
        var shape: [Int] = []
        for field in ProtobufReader(type.bytes) where field.number == 1 {
          // Written packed, but a single number is allowed as well.
          let values = field.bytes.isEmpty ? [field.integer] : ProtobufReader.packed(field.bytes)
          shape += values.map { Int(truncatingIfNeeded: $0) }
        }
        self = .multiArray(shape: shape)
      default: break
      }
    }
  }
}
