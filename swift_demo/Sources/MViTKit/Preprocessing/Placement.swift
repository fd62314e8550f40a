/// How one image maps to a model's input: it is resized, then cropped or padded around its centre.
public struct Placement: Hashable, Sendable {
  /// Size of the upright image.
  public var imageSize: PixelSize
  /// Its size after resizing.
  public var resizedSize: PixelSize
  /// Size of the model's input, a centred window on the resized image.
  public var inputSize: PixelSize

  /// A placement with these sizes.
  public init(imageSize: PixelSize, resizedSize: PixelSize, inputSize: PixelSize) {
    self.imageSize = imageSize
    self.resizedSize = resizedSize
    self.inputSize = inputSize
  }

  /// Left edge of the input in the resized image; negative where the input overhangs.
  public var offsetX: Int { floorHalf(resizedSize.width - inputSize.width) }
  /// Top edge of the input in the resized image; negative where the input overhangs.
  public var offsetY: Int { floorHalf(resizedSize.height - inputSize.height) }

  /// Columns of the input that show the image.
  var validColumns: Range<Int> {
    max(0, -offsetX)..<min(inputSize.width, resizedSize.width - offsetX)
  }
  /// Rows of the input that show the image.
  var validRows: Range<Int> {
    max(0, -offsetY)..<min(inputSize.height, resizedSize.height - offsetY)
  }

  /// The part of the input that shows the image and not padding, in whole pixels.
  public var valid: PlaneBox {
    let (columns, rows) = (validColumns, validRows)
    return PlaneBox(
      left: Double(columns.lowerBound), top: Double(rows.lowerBound),
      right: Double(columns.upperBound), bottom: Double(rows.upperBound))
  }

  /// The part of the upright image that the input shows, in fractional pixels.
  public var source: PlaneBox {
    let scaleX = Double(imageSize.width) / Double(resizedSize.width)
    let scaleY = Double(imageSize.height) / Double(resizedSize.height)
    let valid = valid
    return PlaneBox(
      left: (valid.left + Double(offsetX)) * scaleX, top: (valid.top + Double(offsetY)) * scaleY,
      right: (valid.right + Double(offsetX)) * scaleX,
      bottom: (valid.bottom + Double(offsetY)) * scaleY)
  }

  /// Whether the input shows black where there is no image.
  public var isPadded: Bool { valid != PlaneBox(PlaneSize(inputSize)) }

  /// Where a point of the upright image lies in the input; outside it, if the input cut it off.
  public func input(fromImage position: PlanePoint) -> PlanePoint {
    source.map(position, to: valid)
  }

  /// Where a point of the input lies in the upright image; outside it, if the point is padding.
  public func image(fromInput position: PlanePoint) -> PlanePoint {
    valid.map(position, to: source)
  }
}

/// Half of a number, rounded down, also below zero.
private func floorHalf(_ value: Int) -> Int { value >> 1 }
