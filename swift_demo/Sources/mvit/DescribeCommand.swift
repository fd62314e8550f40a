import Foundation
import MViTKit

/// `mvit describe`: prints what a package says about itself.
struct DescribeCommand: Command {
  static let name = "describe"
  static let usage = """
    mvit describe PACKAGE
        Print what an .mlpackage says about itself and the classes it knows, read without Core ML.
    """

  static func run(_ words: ArraySlice<String>) async throws {
    let path = try Arguments(words, known: []).require("PACKAGE")[0]
    let description = try PackageDescription(package: URL(fileURLWithPath: path))
    let metadata = try PackageMetadata(userDefined: description.userDefined)
    print(description.summary)
    print("task      \(metadata.task.rawValue)")
    print("output    \(metadata.output.rawValue)")
    print("source    \(metadata.source)")
    print("author    \(description.author)")
    print("license   \(description.license)")
    print("version   \(description.version)")
    print("precision \(metadata.precision)")
    if !metadata.bits.isEmpty { print("bits      \(metadata.bits)") }
    for function in metadata.functions {
      let steps = function.preprocessing
      print(
        "function  \(function.name): \(steps.inputSize) \(function.colorOrder.rawValue), "
          + "\(steps.fit.rawValue), \(resize(steps))\(steps.resample.rawValue)")
    }
    for (index, label) in (metadata.labels ?? description.classLabels ?? []).enumerated() {
      let color = metadata.colors.map { "\($0[index].hex) " } ?? ""
      print("class \(index)  \(color)\(label)")
    }
  }

  private static func resize(_ steps: Preprocessing) -> String {
    switch steps.resize {
    case nil: ""
    case .exact(let size): "resized to \(size), "
    case .shortestEdge(let edge): "shortest edge \(edge), "
    }
  }
}
