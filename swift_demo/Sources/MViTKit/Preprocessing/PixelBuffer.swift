/// The order of the bytes of a pixel. The fourth, alpha, is ignored on reading and 255 on writing.
public enum PixelOrder: String, Hashable, Sendable {
  /// Red, green, blue, alpha.
  case rgba
  /// Blue, green, red, alpha: Core Video's `kCVPixelFormatType_32BGRA`.
  case bgra
}

/// Pixels in someone else's memory, to be read; it must outlive the view.
public struct PixelBufferView {
  /// The first byte of row 0.
  public let base: UnsafeRawPointer
  /// Width and height.
  public let size: PixelSize
  /// Distance between the first bytes of two rows.
  public let bytesPerRow: Int
  /// Order of a pixel's bytes.
  public let order: PixelOrder

  /// Describes pixels in memory.
  ///
  /// - Throws: ``PreprocessingError`` for a size without pixels, or rows shorter than their pixels.
  public init(
    base: UnsafeRawPointer, size: PixelSize, bytesPerRow: Int, order: PixelOrder
  ) throws(PreprocessingError) {
    try checkLayout(size, bytesPerRow)
    self.base = base
    self.size = size
    self.bytesPerRow = bytesPerRow
    self.order = order
  }
}

/// Pixels in someone else's memory, to be written; it must outlive the view.
public struct MutablePixelBufferView {
  /// The first byte of row 0.
  public let base: UnsafeMutableRawPointer
  /// Width and height.
  public let size: PixelSize
  /// Distance between the first bytes of two rows.
  public let bytesPerRow: Int
  /// Order of a pixel's bytes.
  public let order: PixelOrder

  /// Describes pixels in memory.
  ///
  /// - Throws: ``PreprocessingError`` for a size without pixels, or rows shorter than their pixels.
  public init(
    base: UnsafeMutableRawPointer, size: PixelSize, bytesPerRow: Int, order: PixelOrder
  ) throws(PreprocessingError) {
    try checkLayout(size, bytesPerRow)
    self.base = base
    self.size = size
    self.bytesPerRow = bytesPerRow
    self.order = order
  }
}

func checkLayout(
  _ size: PixelSize, _ bytesPerRow: Int, byteCount: Int = .max
) throws(PreprocessingError) {
  guard (1...maximumEdge).contains(size.width), (1...maximumEdge).contains(size.height) else {
    throw .unworkableSize(what: "buffer", size)
  }
  // The last row may end with its pixels.
  let rowsBefore = bytesPerRow.multipliedReportingOverflow(by: size.height - 1)
  let needed = rowsBefore.partialValue.addingReportingOverflow(size.width * 4)
  guard bytesPerRow >= size.width * 4, !rowsBefore.overflow, !needed.overflow,
    needed.partialValue <= byteCount
  else {
    throw .shortBuffer(size: size, bytesPerRow: bytesPerRow, byteCount: byteCount)
  }
}
