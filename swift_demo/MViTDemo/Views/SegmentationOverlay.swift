import MViTCoreML
import MViTKit
import SwiftUI

/// The class map over the picture, drawn as one image.
struct SegmentationOverlay: View {
  /// How the picture below fills its view.
  enum Filling {
    case fit, fill
  }

  let demo: DemoModel
  let contentMode: Filling

  var body: some View {
    GeometryReader { geometry in
      if let shown = demo.shown, let overlay = shown.overlay {
        let frames = frames(of: shown, in: geometry.size)
        Image(decorative: overlay.image, scale: 1)
          .interpolation(.none)
          .resizable()
          .frame(width: frames.map.width, height: frames.map.height)
          .offset(x: frames.map.minX, y: frames.map.minY)
          // A map that pads the picture reaches beyond it.
          .mask(alignment: .topLeading) {
            Rectangle()
              .frame(width: frames.image.width, height: frames.image.height)
              .offset(x: frames.image.minX, y: frames.image.minY)
          }
          .opacity(demo.opacity)
      }
    }
    .allowsHitTesting(false)
    .accessibilityHidden(true)
  }

  private func frames(
    of shown: Shown, in size: CGSize
  ) -> (map: CGRect, image: CGRect) {
    let placement = shown.placement
    // The picture is shown upright already, so its upright size is the stored one here.
    let mapping = DisplayMapping(
      view: PlaneSize(width: size.width, height: size.height), storedSize: placement.imageSize,
      contentMode: contentMode == .fit ? .fit : .fill)
    guard case .segmentation(let map) = shown.answer else { return (.zero, .zero) }
    let box = MapMapping(placement: placement, mapSize: map.size).mapBox
    let start = mapping.view(fromImage: PlanePoint(x: box.left, y: box.top))
    let end = mapping.view(fromImage: PlanePoint(x: box.right, y: box.bottom))
    let image = mapping.imageBox
    return (
      CGRect(x: start.x, y: start.y, width: end.x - start.x, height: end.y - start.y),
      CGRect(x: image.left, y: image.top, width: image.width, height: image.height)
    )
  }
}
