import Foundation
import MViTKit
import Testing

private struct TopKCase: Decodable {
  let name: String
  let scores: [Float]
  let order: [Int]
  let softmax: [Double]
}

private struct OverlayCase: Decodable {
  let width: Int
  let height: Int
  let classes: [Int32]
  let colors: [String]
  let alpha: UInt8
  let rgba: String
  let rgbaWithoutClass0: String
}

private struct ScoreCase: Decodable {
  let shape: [Int]
  let strides: [Int]
  let values: [Float]
  let map: [Int32]
  let smoothValues: [Float]
  let resized: GoldenSize
  let resizedMap: [Int32]
}

private struct ClassesCase: Decodable {
  let shape: [Int]
  let strides: [Int]
  let values: [Int32]
  let map: [Int32]
}

private struct UnfittedCase: Decodable {
  let image: GoldenSize
  let input: GoldenSize
  let shortestEdge: Int
  let fit: String
  let mapWidth: Int
  let mapHeight: Int
  let classes: [Int32]
  let fill: Int32
  let unfitted: [Int32]
}

private struct AnswersFile: Decodable {
  struct LabelColors: Decodable {
    let labels: [String]
    let colors: [String]
  }
  struct Segmentation: Decodable {
    let vocColors: [String]
    let vocColors256Sha256: String
    let distinctColors: [String]
    let labelColors: [LabelColors]
    let overlays: [OverlayCase]
    let scores: [ScoreCase]
    let classes: [ClassesCase]
    let unfitted: [UnfittedCase]
  }
  let topK: [TopKCase]
  let segmentation: Segmentation

  static func read() throws -> AnswersFile { try Golden.decode(AnswersFile.self, "answers.json") }
}

@Suite("Classification")
struct ClassificationTests {
  @Test("orders scores as NumPy's stable sort, also with ties")
  func order() throws {
    for golden in try AnswersFile.read().topK {
      let top = topK(golden.scores, labels: [], k: 5)
      #expect(top.map(\.index) == golden.order, "\(golden.name)")
      #expect(top.map(\.score) == golden.order.map { Double(golden.scores[$0]) })
    }
  }

  @Test("orders Core ML's dictionaries alike")
  func dictionaries() throws {
    for golden in try AnswersFile.read().topK {
      let labels = golden.scores.indices.map { "class \($0)" }
      let named = Dictionary(uniqueKeysWithValues: zip(labels, golden.scores.map { Double($0) }))
      let top = topK(named, labels: labels, k: 5)
      #expect(top.map(\.index) == golden.order, "\(golden.name)")
      #expect(top.map(\.label) == golden.order.map { labels[$0] })
    }
  }

  @Test("gives names that it was not told after those that it was")
  func unknownNames() {
    let top = topK(["b": 0.25, "a": 0.25, "z": 0.5], labels: ["z"], k: 9)
    #expect(top.map(\.label) == ["z", "a", "b"])
    #expect(topK([0.5, 0.5], labels: ["one"], k: 2).map(\.label) == ["one", "1"])
  }

  @Test("puts scores that are not numbers last")
  func notNumbers() {
    let top = topK([.nan, 0.1, .nan, 0.9, -.infinity], labels: [], k: 5)
    #expect(top.map(\.index) == [3, 1, 4, 0, 2])
    #expect(topK([1, 2], labels: [], k: -1).isEmpty)
  }

  @Test("turns logits into PyTorch's probabilities")
  func probabilities() throws {
    for golden in try AnswersFile.read().topK {
      let found = softmax(golden.scores)
      for (one, other) in zip(found, golden.softmax) { #expect(abs(Double(one) - other) < 1e-7) }
    }
    #expect(softmax([]).isEmpty)
  }
}

@Suite("Segmentation")
struct SegmentationTests {
  @Test("takes the highest score by shape and strides")
  func scores() throws {
    for golden in try AnswersFile.read().segmentation.scores {
      let map = try golden.values.withUnsafeBufferPointer {
        try ClassMap(scores: $0, shape: golden.shape, strides: golden.strides)
      }
      #expect(map.classes == golden.map)
      #expect(map.size == PixelSize(width: golden.shape.last ?? 0, height: height(golden.shape)))
    }
  }

  @Test("enlarges scores as PyTorch before taking the highest")
  func enlargedScores() throws {
    for golden in try AnswersFile.read().segmentation.scores {
      var strides = [1]
      for length in golden.shape.dropFirst().reversed() {
        strides.insert(strides[0] * length, at: 0)
      }
      let map = try golden.smoothValues.withUnsafeBufferPointer {
        try ClassMap(
          scores: $0, shape: golden.shape, strides: strides, resizedTo: golden.resized.pixelSize)
      }
      #expect(map.classes == golden.resizedMap)
    }
  }

  @Test("reads class maps by shape and strides")
  func classes() throws {
    for golden in try AnswersFile.read().segmentation.classes {
      for extra in 0..<3 {
        let ones = [Int](repeating: 1, count: extra)
        let gaps = [Int](repeating: golden.values.count, count: extra)
        let map = try golden.values.withUnsafeBufferPointer {
          try ClassMap(classes: $0, shape: ones + golden.shape, strides: gaps + golden.strides)
        }
        #expect(map.classes == golden.map)
        #expect(map[golden.shape[1] - 1, 1] == golden.map[golden.shape[1] * 2 - 1])
      }
    }
  }

  @Test("reads class maps of bytes, and how sure the model is")
  func bytesAndConfidence() throws {
    let bytes: [UInt8] = [0, 200, 255, 9, 9, 1, 2, 3, 9, 9]
    var map = try bytes.withUnsafeBufferPointer {
      try ClassMap(classes: $0, shape: [1, 2, 3], strides: [10, 5, 1])
    }
    #expect(map.classes == [0, 200, 255, 1, 2, 3])
    #expect(map.confidence == nil)
    let sure: [Float] = [0.5, 0.6, 0.7, 9, 0.8, 0.9, 1, 9]
    try sure.withUnsafeBufferPointer {
      try map.add(confidence: $0, shape: [2, 3], strides: [4, 1])
    }
    #expect(map.confidence == [0.5, 0.6, 0.7, 0.8, 0.9, 1])
    #expect(throws: ClassMapError.self) {
      try sure.withUnsafeBufferPointer {
        try map.add(confidence: $0, shape: [2, 2], strides: [4, 1])
      }
    }
  }

  @Test("gives several labels a probability each, and pictures a similarity")
  func labelsAndVectors() {
    // 1 / (1 + exp(-x)), rounded by hand.
    let found = sigmoid([0, 2, -2, 1000, -1000])
    for (one, wanted) in zip(found, [0.5, 0.880797, 0.119203, 1, 0] as [Float]) {
      #expect(abs(one - wanted) < 1e-6)
    }
    // The last bit is the processor's.
    #expect(abs((similarity([0.6, 0.8], [0.8, 0.6]) ?? 0) - 0.96) < 1e-6)
    #expect(similarity([1], [1, 0]) == nil)
  }

  @Test("refuses shapes that are no map, and memory that is too small")
  func badShapes() {
    func read(_ shape: [Int], _ strides: [Int], count: Int = 100) throws {
      _ = try [Int32](repeating: 0, count: count).withUnsafeBufferPointer {
        try ClassMap(classes: $0, shape: shape, strides: strides)
      }
    }
    for (shape, strides) in [
      ([4], [1]), ([], []), ([2, 4, 4], [16, 4, 1]), ([4, 4], [4]), ([0, 4], [4, 1]),
      ([10, 11], [11, 1]), ([4, 4], [-4, 1]), ([2, 2, 2, 2], [8, 4, 2, 1]),
    ] {
      #expect(throws: ClassMapError.self) { try read(shape, strides) }
    }
    #expect(throws: Never.self) { try read([10, 10], [10, 1]) }
    #expect(throws: ClassMapError.self) { try read([10, 10], [10, 1], count: 99) }
    #expect(throws: ClassMapError.self) {
      try [Float]([1, 2, 3, 4]).withUnsafeBufferPointer {
        try ClassMap(scores: $0, shape: [2, 2], strides: [2, 1])
      }
    }
  }

  @Test("never lets a score win that is not a number")
  func notNumbers() throws {
    let map = try [Float]([.nan, .nan, 1, .nan]).withUnsafeBufferPointer {
      try ClassMap(scores: $0, shape: [2, 1, 2], strides: [2, 2, 1])
    }
    #expect(map.classes == [1, 0])
  }

  @Test("has the colours of the Python side")
  func colors() throws {
    let golden = try AnswersFile.read().segmentation
    #expect(ClassPalette.voc(21).colors.map(\.hex) == golden.vocColors)
    let bytes = ClassPalette.voc(256).colors.flatMap { [$0.red, $0.green, $0.blue] }
    #expect(ContentDigest.hex(of: bytes) == golden.vocColors256Sha256)
    #expect(ClassPalette.distinct(40).colors.map(\.hex) == golden.distinctColors)
    for named in golden.labelColors {
      #expect(ClassPalette(labels: named.labels).colors.map(\.hex) == named.colors)
    }
    #expect(ClassPalette.distinct(-1).colors.isEmpty)
    #expect(ClassPalette.voc(999).colors.count == 256)
  }

  @Test("paints class maps with the bytes of Pillow")
  func overlays() throws {
    for golden in try AnswersFile.read().segmentation.overlays {
      let palette = ClassPalette(colors: golden.colors.compactMap { RGBColor(hex: $0) })
      let map = try ClassMap(
        size: PixelSize(width: golden.width, height: golden.height), classes: golden.classes)
      #expect(hex(palette.overlay(map, alpha: golden.alpha)) == golden.rgba)
      let hidden = palette.overlay(map, alpha: golden.alpha, hidden: [0])
      #expect(hex(hidden) == golden.rgbaWithoutClass0)
    }
  }

  @Test("leaves classes without a colour transparent")
  func classesWithoutColor() throws {
    let palette = ClassPalette(colors: [RGBColor(red: 1, green: 2, blue: 3)])
    let map = try ClassMap(size: PixelSize(width: 3, height: 1), classes: [0, 1, -1])
    #expect(palette.overlay(map).bytes == [1, 2, 3, 255, 0, 0, 0, 0, 0, 0, 0, 0])
    #expect(palette[0]?.hex == "#010203")
    #expect(palette[1] == nil)
  }

  @Test("lays maps back on the image as the Python side does")
  func unfitted() throws {
    for golden in try AnswersFile.read().segmentation.unfitted {
      let fit = try #require(Fit(rawValue: golden.fit))
      let preprocessing = Preprocessing(
        inputSize: golden.input.pixelSize, fit: fit, resize: .shortestEdge(golden.shortestEdge),
        resample: .bilinear)
      let map = try ClassMap(
        size: PixelSize(width: golden.mapWidth, height: golden.mapHeight), classes: golden.classes)
      let placement = try preprocessing.placement(of: golden.image.pixelSize)
      #expect(map.unfitted(placement, fill: golden.fill).classes == golden.unfitted)
    }
  }

  @Test("says how much each class covers, the largest first")
  func shares() throws {
    let map = try ClassMap(size: PixelSize(width: 4, height: 2), classes: [7, 1, 1, 3, 3, 7, 7, 0])
    let shares = map.shares()
    #expect(shares.map(\.classIndex) == [7, 1, 3, 0])
    #expect(shares.map(\.count) == [3, 2, 2, 1])
    #expect(shares.map(\.fraction) == [0.375, 0.25, 0.25, 0.125])
  }

  @Test("reads colours of the form #RRGGBB alone")
  func hexColors() {
    #expect(RGBColor(hex: "#0aF0ff")?.hex == "#0AF0FF")
    for text in ["", "#", "0AF0FF", "#0AF0F", "#0AF0FFF", "#0AF0G0", "#+1F0FF", "#0AF0é"] {
      #expect(RGBColor(hex: text) == nil, "\(text)")
    }
  }

  private func height(_ shape: [Int]) -> Int { shape[shape.count - 2] }

  private func hex(_ image: PixelImage) -> String {
    image.bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
  }
}
