/// How the stored rows and columns of an image lie in the upright picture.
///
/// Raw values are those of the EXIF orientation tag (CIPA DC-008, tag 274), which
/// `CGImagePropertyOrientation` shares. A case names where the stored top left corner goes wrong:
/// `right` is the usual portrait photo, stored lying on its side, to be turned clockwise.
public enum ImageOrientation: Int, CaseIterable, Hashable, Sendable {
  /// Row 0 is the top, column 0 the left.
  case up = 1
  /// Mirrored left to right.
  case upMirrored = 2
  /// Turned by 180 degrees.
  case down = 3
  /// Mirrored top to bottom.
  case downMirrored = 4
  /// Row 0 is the left, column 0 the top.
  case leftMirrored = 5
  /// Row 0 is the right, column 0 the top.
  case right = 6
  /// Row 0 is the right, column 0 the bottom.
  case rightMirrored = 7
  /// Row 0 is the left, column 0 the bottom.
  case left = 8

  /// Whether the upright picture's width is the stored height.
  public var swapsSides: Bool { rawValue >= 5 }

  /// Whether upright columns count against the stored axis that they run along.
  var reversesColumns: Bool { [.upMirrored, .down, .right, .rightMirrored].contains(self) }

  /// Whether upright rows count against the stored axis that they run along.
  var reversesRows: Bool { [.down, .downMirrored, .rightMirrored, .left].contains(self) }

  /// The size of the upright picture, from that of the stored one; also the way back.
  public func uprightSize(of stored: PixelSize) -> PixelSize {
    swapsSides ? stored.transposed : stored
  }

  /// Where a point of the stored picture lies in the upright one.
  public func upright(_ stored: PlanePoint, storedSize: PixelSize) -> PlanePoint {
    let size = PlaneSize(uprightSize(of: storedSize))
    let x = swapsSides ? stored.y : stored.x
    let y = swapsSides ? stored.x : stored.y
    return PlanePoint(
      x: reversesColumns ? size.width - x : x, y: reversesRows ? size.height - y : y)
  }

  /// Where a point of the upright picture lies in the stored one.
  public func stored(_ upright: PlanePoint, storedSize: PixelSize) -> PlanePoint {
    let size = PlaneSize(uprightSize(of: storedSize))
    let x = reversesColumns ? size.width - upright.x : upright.x
    let y = reversesRows ? size.height - upright.y : upright.y
    return swapsSides ? PlanePoint(x: y, y: x) : PlanePoint(x: x, y: y)
  }
}
