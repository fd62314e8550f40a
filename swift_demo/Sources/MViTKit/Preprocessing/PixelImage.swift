/// Pixels with their memory.
public struct PixelImage: Hashable, Sendable {
  /// Width and height.
  public let size: PixelSize
  /// Distance between the first bytes of two rows.
  public let bytesPerRow: Int
  /// Order of a pixel's bytes.
  public let order: PixelOrder
  /// The bytes, row by row from the top.
  public private(set) var bytes: [UInt8]

  /// Takes pixels.
  ///
  /// - Parameters:
  ///   - size: width and height.
  ///   - bytesPerRow: distance between rows, `nil` where they follow without a gap.
  ///   - order: order of a pixel's bytes.
  ///   - bytes: the pixels.
  /// - Throws: ``PreprocessingError`` if the bytes are too few.
  public init(
    size: PixelSize, bytesPerRow: Int? = nil, order: PixelOrder, bytes: [UInt8]
  ) throws(PreprocessingError) {
    let bytesPerRow = bytesPerRow ?? size.width * 4
    try checkLayout(size, bytesPerRow, byteCount: bytes.count)
    self.init(checked: size, bytesPerRow: bytesPerRow, order: order, bytes: bytes)
  }

  /// Takes pixels that are known to fit their size.
  init(checked size: PixelSize, bytesPerRow: Int, order: PixelOrder, bytes: [UInt8]) {
    self.size = size
    self.bytesPerRow = bytesPerRow
    self.order = order
    self.bytes = bytes
  }

  /// Transparent black, rows without a gap.
  ///
  /// - Throws: ``PreprocessingError`` for a size without pixels.
  public init(size: PixelSize, order: PixelOrder) throws(PreprocessingError) {
    try checkLayout(size, size.width * 4)
    self.init(
      checked: size, bytesPerRow: size.width * 4, order: order,
      bytes: [UInt8](repeating: 0, count: size.area * 4))
  }

  /// Hands out the pixels for reading, within the call.
  public func withView<Result>(_ body: (PixelBufferView) throws -> Result) throws -> Result {
    try bytes.withUnsafeBytes { buffer in
      guard let base = buffer.baseAddress else {
        throw PreprocessingError.unworkableSize(what: "buffer", size)
      }
      return try body(
        PixelBufferView(base: base, size: size, bytesPerRow: bytesPerRow, order: order))
    }
  }

  /// Hands out the pixels for writing, within the call.
  public mutating func withMutableView<Result>(
    _ body: (MutablePixelBufferView) throws -> Result
  ) throws -> Result {
    let (size, bytesPerRow, order) = (size, bytesPerRow, order)
    return try bytes.withUnsafeMutableBytes { buffer in
      guard let base = buffer.baseAddress else {
        throw PreprocessingError.unworkableSize(what: "buffer", size)
      }
      return try body(
        MutablePixelBufferView(base: base, size: size, bytesPerRow: bytesPerRow, order: order))
    }
  }

  /// The red, green and blue of every pixel, row by row without gaps: what Pillow's `tobytes` gives.
  public var rgbBytes: [UInt8] {
    var packed: [UInt8] = []
    packed.reserveCapacity(size.area * 3)
    let (red, blue) = order == .rgba ? (0, 2) : (2, 0)
    for y in 0..<size.height {
      for pixel in stride(from: y * bytesPerRow, to: y * bytesPerRow + size.width * 4, by: 4) {
        packed.append(bytes[pixel + red])
        packed.append(bytes[pixel + 1])
        packed.append(bytes[pixel + blue])
      }
    }
    return packed
  }
}
