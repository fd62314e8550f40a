import MViTKit
import Testing

@Suite("Preprocessing of a stream of frames")
struct FramePreprocessorTests {
  private let steps = Preprocessing(
    inputSize: PixelSize(width: 32, height: 24), fit: .crop, resize: .shortestEdge(28),
    resample: .bilinear)

  private func run(
    _ frames: FramePreprocessor, _ picture: PixelImage, _ orientation: ImageOrientation
  ) throws -> PixelImage {
    var input = try PixelImage(size: frames.preprocessing.inputSize, order: .bgra)
    try input.withMutableView { target in
      try picture.withView { _ = try frames.run($0, orientation: orientation, into: target) }
    }
    return input
  }

  @Test("gives the pixels of a picture on its own, whatever came before it")
  func same() throws {
    let frames = FramePreprocessor(steps)
    for round in 0..<2 {
      for (width, height) in [(97, 61), (61, 97), (97, 61)] {
        for orientation in ImageOrientation.allCases {
          let picture = try Picture(pattern: "noise", seed: round, width: width, height: height)
            .draw(order: .rgba, gap: 4 * round)
          let alone = try Preprocessor(steps).run(picture, orientation: orientation).image
          #expect(try run(frames, picture, orientation) == alone)
        }
      }
    }
  }

  @Test("an unworkable picture leaves the next one alone")
  func recovers() throws {
    let frames = FramePreprocessor(steps)
    let picture = try Picture(pattern: "waves", seed: 1, width: 40, height: 30).draw(order: .bgra)
    let before = try run(frames, picture, .up)
    var small = try PixelImage(size: PixelSize(width: 3, height: 3), order: .bgra)
    #expect(throws: PreprocessingError.self) {
      try small.withMutableView { target in
        try picture.withView { _ = try frames.run($0, into: target) }
      }
    }
    #expect(try run(frames, picture, .up) == before)
  }
}
