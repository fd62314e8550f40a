import MViTKit

/// A picture of any size from a formula, the same as in tests/golden/pictures.py.
struct Picture: Decodable, Hashable, Sendable {
  let pattern: String
  let seed: Int
  let width: Int
  let height: Int

  private static let period = 8191

  /// Draws it, with random alpha, into rows that may be longer than their pixels.
  func draw(order: PixelOrder, gap: Int = 0) throws -> PixelImage {
    let strip = Self.strip(pattern, order)
    let bytesPerRow = width * 4 + gap
    var bytes = [UInt8](repeating: 0xAB, count: bytesPerRow * height)
    bytes.withUnsafeMutableBytes { target in
      strip.withUnsafeBytes { strip in
        for row in 0..<height {
          var pixel = 0
          var source = firstPixel(row)
          while pixel < width {
            let count = min(width - pixel, Self.period - source)
            let piece = UnsafeRawBufferPointer(rebasing: strip[source * 4..<(source + count) * 4])
            let start = row * bytesPerRow + pixel * 4
            UnsafeMutableRawBufferPointer(rebasing: target[start..<start + count * 4])
              .copyMemory(from: piece)
            pixel += count
            source = 0
          }
        }
      }
    }
    return try PixelImage(
      size: PixelSize(width: width, height: height), bytesPerRow: bytesPerRow, order: order,
      bytes: bytes)
  }

  private func firstPixel(_ row: Int) -> Int {
    if pattern == "waves" { return (2 * row + 10 * seed) % Self.period }
    let block = pattern == "checks" ? row / 3 : row
    return (block * block * 31 + block * 7919 + seed * 4729) % Self.period
  }

  private static func strip(_ pattern: String, _ order: PixelOrder) -> [UInt8] {
    let rgba = pattern == "waves" ? waves() : noise(isBlocky: pattern == "checks")
    guard order == .bgra else { return rgba }
    var swapped = rgba
    for pixel in stride(from: 0, to: rgba.count, by: 4) { swapped.swapAt(pixel, pixel + 2) }
    return swapped
  }

  private static func waves() -> [UInt8] {
    let lengths = [97, 61, 37, 23]
    return (0..<period * 4).map { index -> UInt8 in
      let step = (index / 4) * 510 / lengths[index % 4]
      return UInt8(abs(step % 510 - 255))
    }
  }

  private static func noise(isBlocky: Bool) -> [UInt8] {
    var state: UInt32 = 12345
    let noise = (0..<period * 4).map { _ -> UInt8 in
      state = state &* 1_664_525 &+ 1_013_904_223
      return UInt8(state >> 24)
    }
    guard isBlocky else { return noise }
    return (0..<period * 4).map { index -> UInt8 in
      let block = index / 20 * 4
      return noise[block + index % 4] < 128 ? 0 : 255
    }
  }
}
