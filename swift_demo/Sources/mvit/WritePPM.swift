import Foundation
import MViTKit

/// Writes an image as a binary PPM file; its alpha is left out.
func writePPM(_ image: PixelImage, to path: String) throws {
  let header = Array("P6\n\(image.size.width) \(image.size.height)\n255\n".utf8)
  do {
    try Data(header + image.rgbBytes).write(to: URL(fileURLWithPath: path))
  } catch {
    throw UsageError(description: "\(path): cannot be written")
  }
}
