import Foundation
import MViTKit

/// `mvit bench-preprocess`: times the preprocessing of a photo held in memory.
struct BenchPreprocessCommand: Command {
  static let name = "bench-preprocess"
  static let usage = """
    mvit bench-preprocess IMAGE [--runs N] [--orientation 1-8] [options of preprocess]
        Print the milliseconds of every run, and what the pixels hash to. Build with -c release.
    """
  private static let options: Set<String> = [
    "--model", "--function", "--size", "--resize", "--fit", "--resample", "--orientation",
    "--runs",
  ]

  static func run(_ words: ArraySlice<String>) async throws {
    let arguments = try Arguments(words, known: options)
    let (image, _) = try readImage(URL(fileURLWithPath: arguments.require("IMAGE")[0]))
    let runs = try arguments.integer("--runs", in: 1...10_000) ?? 10
    let orientation =
      try arguments.integer("--orientation", in: 1...8).flatMap(ImageOrientation.init) ?? .up
    let preprocessor = FramePreprocessor(try PreprocessCommand.preprocessing(arguments))
    var input = try PixelImage(size: preprocessor.preprocessing.inputSize, order: .bgra)
    let clock = ContinuousClock()
    var ring = LatencyRing(capacity: runs, warmUp: 1)
    try image.withView { source in
      for _ in 0...runs {
        let start = clock.now
        _ = try input.withMutableView {
          try preprocessor.run(source, orientation: orientation, into: $0)
        }
        let seconds = (clock.now - start) / .seconds(1)
        if ring.count < runs { ring.record(seconds: seconds, finishedAt: 0) }
      }
    }
    print("median_ms \((ring.median ?? 0) * 1000)")
    print("minimum_ms \((ring.minimum ?? 0) * 1000)")
    print("sha256 \(ContentDigest.hex(of: input.rgbBytes))")
  }
}
