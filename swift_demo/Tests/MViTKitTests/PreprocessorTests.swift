import Foundation
import MViTKit
import Testing

private struct GoldenCase: Decodable, Sendable, CustomTestStringConvertible {
  let name: String
  let picture: Picture
  let orientation: Int
  let sha256: String
  let firstRow: String
  let steps: GoldenSteps
  let placement: GoldenPlacement

  enum CodingKeys: CodingKey {
    case name, picture, orientation, sha256, firstRow
  }

  init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    name = try container.decode(String.self, forKey: .name)
    picture = try container.decode(Picture.self, forKey: .picture)
    orientation = try container.decode(Int.self, forKey: .orientation)
    sha256 = try container.decode(String.self, forKey: .sha256)
    firstRow = try container.decode(String.self, forKey: .firstRow)
    steps = try GoldenSteps(from: decoder)
    placement = try GoldenPlacement(from: decoder)
  }

  var testDescription: String { name }
}

private struct PlacementCase: Decodable, Sendable {
  let image: GoldenSize
  let steps: GoldenSteps
  let placement: GoldenPlacement

  enum CodingKeys: CodingKey {
    case image
  }

  init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    image = try container.decode(GoldenSize.self, forKey: .image)
    steps = try GoldenSteps(from: decoder)
    placement = try GoldenPlacement(from: decoder)
  }
}

private struct GoldenFile: Decodable, Sendable {
  let cases: [GoldenCase]
  let placements: [PlacementCase]
  let netpbm: [String: String]

  static let file = Result { try Golden.decode(GoldenFile.self, "preprocessing.json") }
}

@Suite("Preprocessing")
struct PreprocessorTests {
  @Test("makes the very pixels of Pillow", arguments: 0..<4)
  func pixels(part: Int) throws {
    let cases = try GoldenFile.file.get().cases
    #expect(cases.count >= 40)
    for (index, golden) in cases.enumerated() where index % 4 == part {
      // Orders and gaps take turns; none of them may show in the result.
      let image = try golden.picture.draw(
        order: index % 3 == 0 ? .rgba : .bgra, gap: index % 5 == 0 ? 12 : 0)
      let orientation = try #require(ImageOrientation(rawValue: golden.orientation))
      let preprocessor = Preprocessor(try golden.steps.preprocessing())
      let (input, placement) = try preprocessor.run(
        image, orientation: orientation, order: index % 2 == 0 ? .bgra : .rgba)
      let pixels = input.rgbBytes
      let start = pixels.prefix(golden.firstRow.count / 2)
      #expect(
        ContentDigest.hex(of: pixels) == golden.sha256,
        "\(golden.name): begins \(start.map { String($0, radix: 16) }), not \(golden.firstRow)")
      golden.placement.expectEqual(placement)
    }
  }

  @Test("lays out images as the Python side does")
  func placements() throws {
    for golden in try GoldenFile.file.get().placements {
      let preprocessing = try golden.steps.preprocessing()
      golden.placement.expectEqual(try preprocessing.placement(of: golden.image.pixelSize))
    }
  }

  @Test("reads PGM, PPM and PAM")
  func netpbm() throws {
    for (name, sha256) in try GoldenFile.file.get().netpbm {
      let image = try PixelImage(netpbm: Golden.data(name))
      #expect(ContentDigest.hex(of: image.rgbBytes) == sha256, "\(name)")
    }
  }

  @Test(
    "says what is wrong with other files",
    arguments: [
      ("", "it begins with neither P5, P6 nor P7"),
      ("\u{89}PNG", "it begins with neither P5, P6 nor P7"),
      ("P6 2 2 255\nabc", "it ends before its last pixel"),
      ("P6 2 x 255\n", "its header has 'x' where a number belongs"),
      ("P6 2 2 65535\n", "its maximal value is 65535; only 255 is read"),
      ("P7\nWIDTH 2\nENDHDR\n", "its header lacks WIDTH, HEIGHT, DEPTH or MAXVAL"),
      ("P7\nCOLOUR 2\nENDHDR\n", "its header has the unknown field 'COLOUR'"),
      ("P7\nWIDTH 1\nHEIGHT 1\nDEPTH 9\nMAXVAL 255\nENDHDR\n", "it has 9 channels"),
    ])
  func brokenNetpbm(text: String, problem: String) {
    #expect(throws: PreprocessingError.notNetpbm(problem)) {
      try PixelImage(netpbm: Data(text.utf8))
    }
  }

  @Test("refuses sizes without pixels")
  func emptySizes() throws {
    let preprocessing = Preprocessing(
      inputSize: PixelSize(width: 8, height: 8), fit: .crop, resize: .shortestEdge(8),
      resample: .bilinear)
    #expect(throws: PreprocessingError.self) {
      try preprocessing.placement(of: PixelSize(width: 0, height: 5))
    }
    #expect(throws: PreprocessingError.self) {
      try PixelImage(size: PixelSize(width: 3, height: -1), order: .rgba)
    }
    let negative = "the image is 0x5 pixels; every edge must have from 1 to 16777216"
    let error = PreprocessingError.unworkableSize(
      what: "image", PixelSize(width: 0, height: 5))
    #expect(error.description == negative)
  }

  @Test("refuses a target of another size, and leaves it alone")
  func wrongTarget() throws {
    let preprocessor = Preprocessor(
      Preprocessing(
        inputSize: PixelSize(width: 8, height: 8), fit: .stretch, resize: nil, resample: .bilinear))
    let image = try PixelImage(size: PixelSize(width: 4, height: 4), order: .bgra)
    var target = try PixelImage(size: PixelSize(width: 8, height: 9), order: .bgra)
    let before = target
    #expect(throws: PreprocessingError.self) {
      try target.withMutableView { view in
        try image.withView { _ = try preprocessor.run($0, into: view) }
      }
    }
    #expect(target == before)
  }

  @Test("refuses buffers shorter than their pixels")
  func shortBuffers() throws {
    let size = PixelSize(width: 2, height: 2)
    #expect(throws: PreprocessingError.self) {
      try PixelImage(size: size, order: .rgba, bytes: [UInt8](repeating: 0, count: 15))
    }
    #expect(throws: PreprocessingError.self) {
      try PixelImage(
        size: size, bytesPerRow: 7, order: .rgba, bytes: [UInt8](repeating: 0, count: 64))
    }
    // The last row need not be followed by a gap.
    let image = try PixelImage(
      size: size, bytesPerRow: 12, order: .rgba, bytes: [UInt8](repeating: 9, count: 20))
    #expect(image.rgbBytes == [UInt8](repeating: 9, count: 12))
  }

  @Test("writes only the pixels of the target, opaque, and not the gaps between its rows")
  func targetGaps() throws {
    let preprocessor = Preprocessor(
      Preprocessing(
        inputSize: PixelSize(width: 3, height: 4), fit: .pad, resize: nil, resample: .bilinear))
    let image = try PixelImage(
      size: PixelSize(width: 1, height: 1), order: .rgba, bytes: [10, 20, 30, 0])
    var target = try PixelImage(
      size: PixelSize(width: 3, height: 4), bytesPerRow: 20, order: .bgra,
      bytes: [UInt8](repeating: 7, count: 80))
    try target.withMutableView { view in
      try image.withView { _ = try preprocessor.run($0, into: view) }
    }
    let black: [UInt8] = [0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255]
    let colored: [UInt8] = [30, 20, 10, 255, 30, 20, 10, 255, 30, 20, 10, 255]
    let gap = [UInt8](repeating: 7, count: 8)
    // The one pixel becomes 3x3; an odd row of padding lies above it.
    let rows = [black, colored, colored, colored]
    #expect(target.bytes == rows.flatMap { $0 + gap })
  }
}
