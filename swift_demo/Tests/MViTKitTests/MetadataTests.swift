import Foundation
import MViTKit
import Testing

private struct ExpectedFunction: Decodable {
  let name: String
  let width: Int
  let height: Int
  let fit: String
  let shortestEdge: Int?
  let resample: String
  let colorOrder: String
  let scale: Double
  let bias: [Double]
}

private struct Expected: Decodable {
  let task: String
  let output: String
  let activation: String
  let mapType: String
  let functions: [ExpectedFunction]
  let labels: [String]?
  let colors: [String]?
}

private struct MetadataFile: Decodable {
  struct Valid: Decodable {
    let name: String
    let userDefined: [String: String]
    let expected: Expected
  }
  struct Broken: Decodable {
    let name: String
    let userDefined: [String: String]
    let error: String
  }
  let valid: [Valid]
  let broken: [Broken]

  /// Decoded without a key strategy, which would change the keys of the packages as well.
  static func read() throws -> MetadataFile {
    try JSONDecoder().decode(MetadataFile.self, from: Golden.data("metadata.json"))
  }

  func metadata(_ name: String) throws -> PackageMetadata {
    let package = try #require(valid.first { $0.name == name })
    return try PackageMetadata(userDefined: package.userDefined)
  }
}

extension MetadataFile.Valid {
  enum CodingKeys: String, CodingKey {
    case name, expected
    case userDefined = "user_defined"
  }
}

extension MetadataFile.Broken {
  enum CodingKeys: String, CodingKey {
    case name, error
    case userDefined = "user_defined"
  }
}

extension Expected {
  enum CodingKeys: String, CodingKey {
    case task, output, activation, functions, labels, colors
    case mapType = "map_type"
  }
}

extension ExpectedFunction {
  enum CodingKeys: String, CodingKey {
    case name, width, height, fit, resample, scale, bias
    case shortestEdge = "shortest_edge"
    case colorOrder = "color_order"
  }
}

@Suite("Metadata")
struct MetadataTests {
  @Test("of real packages is read")
  func realPackages() throws {
    let file = try MetadataFile.read()
    #expect(file.valid.count >= 4)
    for package in file.valid {
      let metadata = try PackageMetadata(userDefined: package.userDefined)
      let expected = package.expected
      #expect(metadata.task.rawValue == expected.task)
      #expect(metadata.output.rawValue == expected.output)
      #expect(metadata.activation.rawValue == expected.activation)
      #expect(metadata.mapType.rawValue == expected.mapType)
      #expect(metadata.labels == expected.labels)
      #expect(metadata.colors?.map(\.hex) == expected.colors)
      #expect(metadata.functions.map(\.name) == expected.functions.map(\.name))
      #expect(metadata.isMultifunction == (expected.functions.count > 1))
      #expect(metadata.precision == "fp16")
      #expect(metadata.weightsSHA256.count == 64)
      for (found, wanted) in zip(metadata.functions, expected.functions) {
        check(found, wanted)
      }
    }
  }

  private func check(_ found: PackageFunction, _ wanted: ExpectedFunction) {
    #expect(found.inputSize == PixelSize(width: wanted.width, height: wanted.height))
    #expect(found.preprocessing.fit.rawValue == wanted.fit)
    #expect(found.preprocessing.resize == wanted.shortestEdge.map { .shortestEdge($0) })
    #expect(found.preprocessing.resample.rawValue == wanted.resample)
    #expect(found.colorOrder.rawValue == wanted.colorOrder)
    #expect(abs(found.scale - wanted.scale) < 1e-15)
    #expect(found.bias == wanted.bias)
  }

  @Test("that is broken is refused with the key at fault")
  func brokenPackages() throws {
    let file = try MetadataFile.read()
    #expect(file.broken.count >= 30)
    for package in file.broken {
      do {
        _ = try PackageMetadata(userDefined: package.userDefined)
        Issue.record("\(package.name) was read")
      } catch {
        #expect(error.description == package.error)
        #expect(package.error.hasPrefix(error.key))
      }
    }
  }

  @Test("lets a function be chosen by size and by name")
  func choices() throws {
    let metadata = try MetadataFile.read().metadata("sizes")
    func name(_ choice: FunctionChoice) throws -> String { try metadata.function(choice).name }
    #expect(try name(.smallest) == "size_64x64")
    #expect(try name(.largest) == "size_96x128")
    #expect(try name(.named("size_96x128")) == "size_96x128")
    #expect(try name(.atLeast(PixelSize(width: 60, height: 64))) == "size_64x64")
    #expect(try name(.atLeast(PixelSize(width: 65, height: 10))) == "size_96x128")
    #expect(try name(.atLeast(PixelSize(width: 4000, height: 3000))) == "size_96x128")
    #expect(throws: MetadataError.self) { try metadata.function(.named("main")) }
  }

  @Test("gives a palette even where the package has no colours")
  func palettes() throws {
    let file = try MetadataFile.read()
    let stored = try file.metadata("segmenter")
    #expect(stored.palette().colors == stored.colors)
    let unnamed = try file.metadata("scores")
    #expect(unnamed.palette() == ClassPalette(labels: try #require(unnamed.labels)))
    #expect(unnamed.palette(count: 9) == .distinct(9))
    #expect(try file.metadata("features").palette(count: 3) == .distinct(3))
  }
}

@Suite("Package description")
struct PackageDescriptionTests {
  @Test("of a single function is read without Core ML")
  func single() throws {
    let description = try PackageDescription(package: package("segmenter"))
    #expect(description.specificationVersion == 8)
    #expect(description.version == "1.0")
    #expect(description.author == "unknown")
    #expect(description.license.contains("see the source checkpoint"))
    #expect(description.summary.hasSuffix("converted from segmenter."))
    #expect(description.functionNames.isEmpty)
    #expect(description.inputs.map(\.kind) == [.image(PixelSize(width: 96, height: 96))])
    #expect(description.outputs.map(\.name) == ["classes"])
    #expect(description.outputs.map(\.kind) == [.multiArray(shape: [96, 96])])
    let metadata = try PackageMetadata(userDefined: description.userDefined)
    #expect(try metadata == MetadataFile.read().metadata("segmenter"))
  }

  @Test("of several functions is read without Core ML")
  func several() throws {
    let description = try PackageDescription(package: package("sizes"))
    #expect(description.specificationVersion == 9)
    #expect(Set(description.functionNames) == ["size_96x128", "size_64x64"])
    #expect(description.defaultFunction == "size_96x128")
    #expect(description.inputs.count == 1)
    #expect(description.outputs.map(\.kind) == [.other, .other])
  }

  @Test("of folders that are no package is refused")
  func broken() throws {
    try withTemporaryFolder { folder in
      func message() -> String? {
        do {
          _ = try PackageDescription(package: folder)
          return nil
        } catch {
          return error.description
        }
      }
      let manifest = folder.appendingPathComponent("Manifest.json")
      #expect(message()?.hasSuffix("is no .mlpackage; it has no Manifest.json") == true)
      try Data("{}".utf8).write(to: manifest)
      #expect(message()?.hasSuffix("is damaged; it names no model") == true)
      let outside = #"{"itemInfoEntries": {"a": {"path": "../../x"}}, "rootModelIdentifier": "a"}"#
      try Data(outside.utf8).write(to: manifest)
      #expect(message()?.hasSuffix("is damaged; it names no model") == true)
      try Data(outside.replacingOccurrences(of: "../../", with: "").utf8).write(to: manifest)
      #expect(message()?.hasSuffix("Data/x: cannot be read") == true)
      let data = folder.appendingPathComponent("Data")
      try FileManager.default.createDirectory(at: data, withIntermediateDirectories: true)
      // Every cut of a real file is either too short or ends between two fields.
      let model = package("segmenter").appendingPathComponent("Data/com.apple.CoreML/model.mlmodel")
      let whole = try Data(contentsOf: model)
      for count in [0, 1, 3, 100, whole.count - 1] {
        try whole.prefix(count).write(to: data.appendingPathComponent("x"))
        #expect(message()?.hasSuffix("is damaged; it is no Core ML model") == true, "\(count)")
      }
    }
  }

  private func package(_ name: String) -> URL {
    Golden.folder.appendingPathComponent("packages").appendingPathComponent(name)
  }
}
