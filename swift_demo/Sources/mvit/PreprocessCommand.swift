import Foundation
import MViTKit

/// `mvit preprocess`: brings an image to a model's input and prints what the pixels hash to.
struct PreprocessCommand: Command {
  static let name = "preprocess"
  static let usage = """
    mvit preprocess IMAGE [--model PACKAGE [--function NAME]] [-o FILE.ppm]
                          [--size WxH] [--resize EDGE|WxH|none] [--fit crop|stretch|pad]
                          [--resample FILTER] [--orientation 1-8]
        Bring IMAGE to a model's input and print the SHA-256 of its red, green and blue bytes.
        The steps are those of PACKAGE, or those given; 288 -> 256 bilinear by default.
        IMAGE is a binary PGM, PPM or PAM file; on Apple platforms any image, whose own
        orientation is respected and whose colours are converted to sRGB.
    """
  private static let options: Set<String> = [
    "--model", "--function", "--size", "--resize", "--fit", "--resample", "--orientation", "-o",
  ]

  static func run(_ words: ArraySlice<String>) async throws {
    let arguments = try Arguments(words, known: options)
    let path = try arguments.require("IMAGE")[0]
    let (image, stored) = try readImage(URL(fileURLWithPath: path))
    let given = try arguments.integer("--orientation", in: 1...8).flatMap(ImageOrientation.init)
    let preprocessor = Preprocessor(try preprocessing(arguments))
    let (input, placement) = try preprocessor.run(
      image, orientation: given ?? stored, order: .rgba)
    let pixels = input.rgbBytes
    if let output = arguments.text("-o") { try writePPM(input, to: output) }
    let source = placement.source
    print("image    \(placement.imageSize)")
    print("resized  \(placement.resizedSize)")
    print("input    \(placement.inputSize)")
    print("shows    \(source.left),\(source.top) to \(source.right),\(source.bottom)")
    print("sha256   \(ContentDigest.hex(of: pixels))")
  }

  /// The package's steps, or those of the options.
  static func preprocessing(_ arguments: Arguments) throws -> Preprocessing {
    if let model = arguments.text("--model") {
      let description = try PackageDescription(package: URL(fileURLWithPath: model))
      let metadata = try PackageMetadata(userDefined: description.userDefined)
      let choice = arguments.text("--function").map { FunctionChoice.named($0) }
      return try metadata.function(choice ?? .smallest).preprocessing
    }
    let size = try arguments.size("--size") ?? PixelSize(width: 256, height: 256)
    return Preprocessing(
      inputSize: size, fit: try arguments.choice("--fit", Fit.self) ?? .crop,
      resize: try resizeTarget(arguments, size),
      resample: try arguments.choice("--resample", ResampleFilter.self) ?? .bilinear)
  }

  private static func resizeTarget(
    _ arguments: Arguments, _ size: PixelSize
  ) throws -> ResizeTarget? {
    guard let text = arguments.text("--resize") else {
      return .shortestEdge(min(size.width, size.height) + 32)
    }
    if text == "none" { return nil }
    guard let target = try arguments.size("--resize") else { return nil }
    return text.contains("x") ? .exact(target) : .shortestEdge(target.width)
  }
}
