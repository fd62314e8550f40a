extension ClassMap {
  /// Lays the map of a model's input back on the upright image, by nearest neighbour.
  ///
  /// - Parameters:
  ///   - placement: how the image was fitted to the input.
  ///   - fill: class of the pixels that the input did not show.
  /// - Returns: a map of the image's size.
  public func unfitted(_ placement: Placement, fill: Int32 = 0) -> ClassMap {
    let (source, valid) = (placement.source, placement.valid)
    let columns = cells(
      count: placement.imageSize.width, source: (source.left, source.right),
      valid: (valid.left, valid.right), perPixel: Double(width) / Double(placement.inputSize.width))
    let rows = cells(
      count: placement.imageSize.height, source: (source.top, source.bottom),
      valid: (valid.top, valid.bottom),
      perPixel: Double(height) / Double(placement.inputSize.height))
    var pixels: [Int32] = []
    pixels.reserveCapacity(placement.imageSize.area)
    for row in rows {
      for column in columns {
        guard let row, let column else {
          pixels.append(fill)
          continue
        }
        pixels.append(classes[row * width + column])
      }
    }
    return ClassMap(checked: placement.imageSize, pixels)
  }
}

/// For each pixel of an image's axis: the cell of the map over it; `nil` where it was not shown.
private func cells(
  count: Int, source: (Double, Double), valid: (Double, Double), perPixel: Double
) -> [Int?] {
  let scale = (valid.1 - valid.0) / (source.1 - source.0)
  return (0..<count).map { pixel in
    let position = valid.0 + (Double(pixel) + 0.5 - source.0) * scale
    guard position >= valid.0, position < valid.1 else { return nil }
    return Int(min(position, valid.1.nextDown) * perPixel)
  }
}
