extension ClassPalette {
  /// Paints a class map, ready to be drawn over its picture as one image without interpolation.
  ///
  /// - Parameters:
  ///   - map: the classes.
  ///   - alpha: how opaque the colours are, 255 by default.
  ///   - hidden: classes to leave out, such as the background. Classes without a colour are, too.
  /// - Returns: an image of the map's size in the order red, green, blue, alpha, the colours
  ///   multiplied by alpha as Core Graphics' `premultipliedLast` wants them.
  public func overlay(
    _ map: ClassMap, alpha: UInt8 = 255, hidden: Set<Int> = []
  ) -> PixelImage {
    let painted = colors.enumerated().map { index, color in
      hidden.contains(index) ? 0 : premultiplied(color, alpha)
    }
    var bytes = [UInt8](repeating: 0, count: map.classes.count * 4)
    bytes.withUnsafeMutableBytes { buffer in
      let pixels = buffer.bindMemory(to: UInt32.self)
      for (index, value) in map.classes.enumerated() where painted.indices.contains(Int(value)) {
        pixels[index] = painted[Int(value)]
      }
    }
    return PixelImage(
      checked: map.size, bytesPerRow: map.width * 4, order: .rgba, bytes: bytes)
  }
}

/// Packs a colour so that its bytes in memory are red, green, blue, alpha.
private func premultiplied(_ color: RGBColor, _ alpha: UInt8) -> UInt32 {
  let channels = [color.red, color.green, color.blue].map { channel in
    (UInt32(channel) * UInt32(alpha) + 127) / 255
  }
  return (channels[0] | channels[1] << 8 | channels[2] << 16 | UInt32(alpha) << 24).littleEndian
}
