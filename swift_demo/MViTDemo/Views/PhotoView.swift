import MViTCoreML
import MViTKit
import SwiftUI

/// The chosen picture with its segmentation.
struct PhotoView: View {
  let demo: DemoModel
  let choose: @MainActor () -> Void

  var body: some View {
    if let picture = demo.picture {
      Image(
        decorative: picture.image.image, scale: 1,
        orientation: Image.Orientation(picture.photo.orientation)
      )
      .resizable()
      .scaledToFit()
      .accessibilityLabel("Chosen picture")
      .overlay { SegmentationOverlay(demo: demo, contentMode: .fit) }
      .accessibilityElement(children: .combine)
    } else if demo.isDecoding {
      ProgressView("Reading the picture…")
    } else {
      ContentUnavailableView {
        Label("No Picture", systemImage: "photo")
      } description: {
        Text("Choose a picture to see what the model says about it.")
      } actions: {
        Button("Choose Photo", action: choose)
          .buttonStyle(.borderedProminent)
      }
    }
  }
}

extension Image.Orientation {
  /// The same orientation for SwiftUI, whose raw values are others.
  init(_ orientation: ImageOrientation) {
    switch orientation {
    case .up: self = .up
    case .upMirrored: self = .upMirrored
    case .down: self = .down
    case .downMirrored: self = .downMirrored
    case .leftMirrored: self = .leftMirrored
    case .right: self = .right
    case .rightMirrored: self = .rightMirrored
    case .left: self = .left
    }
  }
}
