#if canImport(CoreML)
import CoreVideo
import Foundation
import MViTKit

/// Recycled 32BGRA pixel buffers of one size.
///
/// Core ML turns 32BGRA into the channel order that a package declares, so no channel is ever
/// moved here. Not `Sendable`, as Core Video's pool is not in every SDK: a model's actor owns it.
struct PixelBufferPool {
  private let pool: CVPixelBufferPool

  /// Creates a pool.
  ///
  /// - Throws: ``ModelError/noBuffer(_:)``.
  init(size: PixelSize) throws {
    let buffers: [String: Any] = [
      kCVPixelBufferPixelFormatTypeKey as String: Int(kCVPixelFormatType_32BGRA),
      kCVPixelBufferWidthKey as String: size.width,
      kCVPixelBufferHeightKey as String: size.height,
      // Backed by an IOSurface, the buffer reaches the GPU and the Neural Engine without a copy.
      kCVPixelBufferIOSurfacePropertiesKey as String: [String: Any](),
    ]
    var created: CVPixelBufferPool?
    let status = CVPixelBufferPoolCreate(nil, nil, buffers as CFDictionary, &created)
    guard status == kCVReturnSuccess, let created else {
      throw ModelError.noBuffer("buffers of \(size.description) pixels")
    }
    pool = created
  }

  /// Hands out a buffer with arbitrary content.
  func makeBuffer() throws -> CVPixelBuffer {
    var buffer: CVPixelBuffer?
    let status = CVPixelBufferPoolCreatePixelBuffer(nil, pool, &buffer)
    guard status == kCVReturnSuccess, let buffer else {
      throw ModelError.noBuffer("an input buffer")
    }
    return buffer
  }
}

/// Gives access to a 32BGRA buffer's pixels for reading.
func withPixels<Result>(
  of buffer: CVPixelBuffer, _ body: (PixelBufferView) throws -> Result
) throws -> Result {
  try withLockedBytes(of: buffer, flags: .readOnly) { bytes, size, bytesPerRow in
    try body(
      PixelBufferView(
        base: UnsafeRawPointer(bytes), size: size, bytesPerRow: bytesPerRow, order: .bgra))
  }
}

/// Gives access to a 32BGRA buffer's pixels for writing.
func withMutablePixels<Result>(
  of buffer: CVPixelBuffer, _ body: (MutablePixelBufferView) throws -> Result
) throws -> Result {
  try withLockedBytes(of: buffer, flags: []) { bytes, size, bytesPerRow in
    try body(
      MutablePixelBufferView(base: bytes, size: size, bytesPerRow: bytesPerRow, order: .bgra))
  }
}

/// Reads a class map out of a grayscale image of 8 bits.
func classMap(of buffer: CVPixelBuffer) throws -> ClassMap {
  try withLockedBytes(
    of: buffer, flags: .readOnly, format: kCVPixelFormatType_OneComponent8
  ) { bytes, size, bytesPerRow in
    let count = bytesPerRow * (size.height - 1) + size.width
    let values = UnsafeBufferPointer(
      start: UnsafePointer(bytes.assumingMemoryBound(to: UInt8.self)), count: count)
    return try ClassMap(
      classes: values, shape: [size.height, size.width], strides: [bytesPerRow, 1])
  }
}

private func withLockedBytes<Result>(
  of buffer: CVPixelBuffer, flags: CVPixelBufferLockFlags,
  format wanted: OSType = kCVPixelFormatType_32BGRA,
  _ body: (UnsafeMutableRawPointer, PixelSize, Int) throws -> Result
) throws -> Result {
  let format = CVPixelBufferGetPixelFormatType(buffer)
  guard format == wanted else { throw ModelError.pixelFormat(format) }
  guard CVPixelBufferLockBaseAddress(buffer, flags) == kCVReturnSuccess else {
    throw ModelError.noBuffer("access to a pixel buffer")
  }
  defer { CVPixelBufferUnlockBaseAddress(buffer, flags) }
  guard let bytes = CVPixelBufferGetBaseAddress(buffer) else {
    throw ModelError.noBuffer("access to a pixel buffer")
  }
  return try body(bytes, pixelSize(of: buffer), CVPixelBufferGetBytesPerRow(buffer))
}

/// Size of a buffer as it is stored.
func pixelSize(of buffer: CVPixelBuffer) -> PixelSize {
  PixelSize(width: CVPixelBufferGetWidth(buffer), height: CVPixelBufferGetHeight(buffer))
}
#endif
