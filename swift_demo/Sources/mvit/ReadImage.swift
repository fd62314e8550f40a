import Foundation
import MViTKit

#if canImport(CoreML)
import MViTCoreML
#endif

/// Decodes an image file into pixels as they are stored, and how to turn them upright.
///
/// PGM, PPM and PAM files are decoded by this package everywhere, so that any two machines work on
/// the same pixels. Other formats need Apple's ImageIO.
func readImage(_ url: URL) throws -> (PixelImage, ImageOrientation) {
  guard let data = try? Data(contentsOf: url) else {
    throw UsageError(description: "\(url.path): cannot be read")
  }
  if isNetpbm(data) { return (try PixelImage(netpbm: data), .up) }
  #if canImport(CoreML)
  let photo = try Photo(data: data)
  return (try photo.pixels(), photo.orientation)
  #else
  throw UsageError(
    description: "\(url.path): only binary PGM, PPM and PAM images are read on this system, as "
      + "decoders of other formats differ; convert it first, for example with Pillow or "
      + "`magick picture.jpg picture.ppm`")
  #endif
}

/// Whether a file begins as the formats that ``PixelImage/init(netpbm:)`` reads.
private func isNetpbm(_ data: Data) -> Bool {
  let start = Array(data.prefix(2))
  return start.count == 2 && start[0] == UInt8(ascii: "P")
    && (UInt8(ascii: "5")...UInt8(ascii: "7")).contains(start[1])
}
