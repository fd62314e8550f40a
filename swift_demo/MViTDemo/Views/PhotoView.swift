import MViTCoreML
import SwiftUI
import UIKit

/// The chosen picture with its segmentation.
struct PhotoView: View {
  let demo: DemoModel
  let choose: @MainActor () -> Void

  var body: some View {
    if let picture = demo.picture, let image = UIImage(data: picture.data) {
      Image(uiImage: image)
        .resizable()
        .scaledToFit()
        .accessibilityLabel("Chosen picture")
        .overlay { SegmentationOverlay(demo: demo, contentMode: .fit) }
        .accessibilityElement(children: .combine)
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
