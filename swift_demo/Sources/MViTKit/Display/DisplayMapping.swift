/// Where the points of an image appear in a view that shows it upright and centred.
public struct DisplayMapping: Hashable, Sendable {
  /// How an image fills a view of another shape.
  public enum ContentMode: Hashable, Sendable {
    /// The whole image is shown, with space beside or above it.
    case fit
    /// The whole view is filled, and the image cut off.
    case fill
  }

  /// Size of the stored image.
  public let storedSize: PixelSize
  /// How the stored image is turned upright.
  public let orientation: ImageOrientation
  /// Whether the view shows the upright image as in a mirror, as front cameras do.
  public let isMirrored: Bool
  /// Where the whole upright image lies in the view; beyond its edges where it is cut off.
  public let imageBox: PlaneBox
  private let viewBox: PlaneBox

  /// Lays out an image in a view.
  ///
  /// - Parameters:
  ///   - view: size of the view, in points.
  ///   - storedSize: size of the image as it is stored.
  ///   - orientation: how it is turned upright.
  ///   - contentMode: whether it is shown as a whole.
  ///   - isMirrored: whether left and right are exchanged on the screen.
  public init(
    view: PlaneSize, storedSize: PixelSize, orientation: ImageOrientation = .up,
    contentMode: ContentMode, isMirrored: Bool = false
  ) {
    self.storedSize = storedSize
    self.orientation = orientation
    self.isMirrored = isMirrored
    viewBox = PlaneBox(view)
    let image = PlaneSize(orientation.uprightSize(of: storedSize))
    let (across, down) = (view.width / image.width, view.height / image.height)
    let scale = contentMode == .fit ? min(across, down) : max(across, down)
    let (width, height) = (image.width * scale, image.height * scale)
    let (left, top) = ((view.width - width) / 2, (view.height - height) / 2)
    imageBox = PlaneBox(left: left, top: top, right: left + width, bottom: top + height)
  }

  private var uprightBox: PlaneBox { PlaneBox(PlaneSize(orientation.uprightSize(of: storedSize))) }

  /// Where a point of the upright image appears; outside the view if it is cut off.
  public func view(fromImage position: PlanePoint) -> PlanePoint {
    mirrored(uprightBox.map(position, to: imageBox))
  }

  /// The point of the upright image at a point of the view; `nil` where there is no image.
  ///
  /// The edges of view and image belong to them: a mirror exchanges the left one and the right one.
  public func image(fromView position: PlanePoint) -> PlanePoint? {
    guard isWithin(viewBox, position) else { return nil }
    let found = imageBox.map(mirrored(position), to: uprightBox)
    return isWithin(uprightBox, found) ? found : nil
  }

  /// Where a point of the stored image appears; outside the view if it is cut off.
  public func view(fromStored position: PlanePoint) -> PlanePoint {
    view(fromImage: orientation.upright(position, storedSize: storedSize))
  }

  /// The point of the stored image at a point of the view; `nil` where there is no image.
  public func stored(fromView position: PlanePoint) -> PlanePoint? {
    image(fromView: position).map { orientation.stored($0, storedSize: storedSize) }
  }

  /// Exchanges left and right of the view, if it is a mirror.
  private func mirrored(_ position: PlanePoint) -> PlanePoint {
    isMirrored ? PlanePoint(x: viewBox.right - position.x, y: position.y) : position
  }

  private func isWithin(_ box: PlaneBox, _ position: PlanePoint) -> Bool {
    (box.left...box.right).contains(position.x) && (box.top...box.bottom).contains(position.y)
  }
}
