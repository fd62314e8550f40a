import Foundation
import MViTKit
import Testing

/// The files that the Python side's tests check as well.
enum Golden {
  static let folder = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent()
    .appendingPathComponent("tests/golden/data")

  static func data(_ name: String) throws -> Data {
    try Data(contentsOf: folder.appendingPathComponent(name))
  }

  static func decode<Content: Decodable>(_ type: Content.Type, _ name: String) throws -> Content {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return try decoder.decode(type, from: data(name))
  }
}

struct GoldenSize: Decodable, Hashable, Sendable {
  let width: Int
  let height: Int

  var pixelSize: PixelSize { PixelSize(width: width, height: height) }
}

struct GoldenBox: Decodable, Hashable, Sendable {
  let left: Double
  let top: Double
  let right: Double
  let bottom: Double
}

/// Either a shortest edge or a size.
struct GoldenResize: Decodable, Hashable, Sendable {
  let shortestEdge: Int?
  let width: Int?
  let height: Int?

  var target: ResizeTarget {
    if let shortestEdge { return .shortestEdge(shortestEdge) }
    return .exact(PixelSize(width: width ?? 0, height: height ?? 0))
  }
}

struct GoldenSteps: Decodable, Hashable, Sendable {
  let input: GoldenSize
  let fit: String
  let resize: GoldenResize?
  let resample: String

  func preprocessing() throws -> Preprocessing {
    Preprocessing(
      inputSize: input.pixelSize, fit: try #require(Fit(rawValue: fit)), resize: resize?.target,
      resample: try #require(ResampleFilter(rawValue: resample)))
  }
}

struct GoldenVision: Decodable, Hashable, Sendable {
  let x: Double
  let y: Double
  let width: Double
  let height: Double
  let scaling: String
}

/// Where an image lies in an input.
struct GoldenPlacement: Decodable, Hashable, Sendable {
  let resized: GoldenSize
  let valid: GoldenBox
  let source: GoldenBox
  let vision: GoldenVision?

  func expectEqual(_ placement: Placement) {
    #expect(placement.resizedSize == resized.pixelSize)
    #expect(isClose(placement.valid, valid))
    #expect(isClose(placement.source, source))
    let found = placement.visionRegion
    guard let vision, let found else {
      #expect(vision == nil && found == nil)
      return
    }
    let pairs = [
      (found.x, vision.x), (found.y, vision.y), (found.width, vision.width),
      (found.height, vision.height),
    ]
    #expect(pairs.allSatisfy { abs($0 - $1) < 1e-12 })
    #expect((found.scaling == .scaleFit ? "scaleFit" : "scaleFill") == vision.scaling)
  }

  private func isClose(_ box: PlaneBox, _ golden: GoldenBox) -> Bool {
    let pairs = [
      (box.left, golden.left), (box.top, golden.top), (box.right, golden.right),
      (box.bottom, golden.bottom),
    ]
    return pairs.allSatisfy { abs($0 - $1) <= 1e-9 * max(1, abs($1)) }
  }
}
